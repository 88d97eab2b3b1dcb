// Caches what layers compute from the graph alone, such as a normalisation or self-loops, by the identity of the
// inputs. Every call gets its own copy (Original in identity.h), so that no caller sees another caller's writes,
// gradients or attributes. Compiled code shares the results instead: reading the memory of a copy, as a compiled kernel
// does, would make torch copy the elements.
#pragma once

#include <cstdint>

namespace gnna {

void sweep_memo();
void clear_memo();
void set_max_memo_bytes(int64_t bytes);

}  // namespace gnna

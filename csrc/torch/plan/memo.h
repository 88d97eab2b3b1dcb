// What layers compute from the graph alone (a normalisation, self-loops), remembered by the identity of what it was
// computed from. Every call gets a copy of its own (identity.h), so that no caller sees another one's writes, gradients
// or attributes.
#pragma once

#include <cstdint>

namespace gnna {

void sweep_memo();
void clear_memo();
void set_max_memo_bytes(int64_t bytes);

}  // namespace gnna

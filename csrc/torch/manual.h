// What the user fixed of the decider's parameters, for the whole process (gnna::set_manual).
#pragma once

#include <c10/util/ArrayRef.h>

#include "gnna/decide.h"

namespace gnna {

// As one list: kernel (-1: open), lanes, groups, ngs, vector_width, vectors, block, long_row, item_edges (0: open).
Manual manual_of(c10::IntArrayRef values);

Manual manual();
void set_manual(c10::IntArrayRef values);

}  // namespace gnna

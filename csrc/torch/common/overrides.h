// What launches have to keep to, for the whole process: what the user fixed of the decider's parameters
// (gnna::set_manual), or what was measured for one aggregation (gnna::set_tuned).
#pragma once

#include <c10/util/ArrayRef.h>

#include "gnna/decide.h"

namespace gnna {

// As one list: kernel (-1: open), lanes, groups, group_size, vector_width, vectors, block, split_above, chunk_edges (0:
// open).
Manual manual_of(c10::IntArrayRef values);

Manual manual();  // what the user fixed
void set_manual(c10::IntArrayRef values);

// The best parameters for an aggregation with exactly these facts: rows, cols, edges, max_degree, width, head_dim,
// itemsize, weighted, reduce.
void set_tuned(c10::IntArrayRef facts, c10::IntArrayRef values);
void clear_tuned();

// What the user fixed where that is anything, else what was measured for these facts, else nothing.
Manual manual_for(const GraphFacts& graph, const LayerFacts& layer);

}  // namespace gnna

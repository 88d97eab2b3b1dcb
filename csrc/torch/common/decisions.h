// The decisions of this process: the overrides in force, the one place where "by hand > tuned > rules" is resolved, and
// the record of what each launch was decided to be.
#pragma once

#include <c10/util/ArrayRef.h>

#include "gnna/decide.h"

namespace gnna {

// Overrides that the user set; empty ones leave every parameter to tuned launches and rules. Thread-safe.
void set_overrides(const Overrides& overrides);

// Overrides that were measured to be best for aggregations with exactly these facts. Thread-safe.
void set_tuned(const GraphFacts& graph, const LayerFacts& layer, const Overrides& overrides);
void clear_tuned();

// Decides with the overrides in force: those set by hand, else those tuned for these facts, else none.
Decision decide_in_force(const GraphFacts& graph, const LayerFacts& layer, const DeviceFacts& device);

// Decides a launch, and records the decision as the calling thread's last one.
const Decision& decide_launch(const GraphFacts& graph, const LayerFacts& layer, const DeviceFacts& device);

// How the row kernel splits rows of this graph. The other operations share its chunks, so that one list serves all.
KernelConfig split_of(const GraphFacts& graph, const DeviceFacts& device);

// The calling thread's last decision; nullptr if no launch was decided on it.
const Decision* last_decision();

}  // namespace gnna

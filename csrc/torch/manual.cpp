// The parameters fixed by hand, behind one lock.
#include "manual.h"

#include <c10/util/Exception.h>

#include <mutex>

namespace gnna {

namespace {

std::mutex mutex;
Manual in_force;

}  // namespace

Manual manual_of(c10::IntArrayRef values) {
  TORCH_CHECK_VALUE(values.size() == 9, "there are ", values.size(), " manual parameters; there must be 9");
  const auto value = [&](size_t i) { return static_cast<int>(values[i]); };
  Manual m;
  if (values[0] >= 0) m.kernel = static_cast<Kernel>(values[0]);
  m.lanes = value(1), m.groups = value(2), m.ngs = value(3), m.vector_width = value(4), m.vectors = value(5),
  m.block = value(6);
  m.long_row = values[7], m.item_edges = values[8];
  return m;
}

Manual manual() {
  const std::lock_guard<std::mutex> lock(mutex);
  return in_force;
}

void set_manual(c10::IntArrayRef values) {
  const Manual m = manual_of(values);
  const std::lock_guard<std::mutex> lock(mutex);
  in_force = m;
}

}  // namespace gnna

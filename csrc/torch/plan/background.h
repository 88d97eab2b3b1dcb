// One thread for work that nobody waits for. Torch-free where it matters: jobs touch plain memory only, so that they
// may still run while the process ends.
#pragma once

#include <functional>
#include <memory>

namespace gnna {

struct BackgroundTask {
  virtual ~BackgroundTask() = default;
  virtual void run() = 0;
  virtual void give_up() = 0;  // makes run() return soon; from any thread
};

// Runs tasks one after the other, started with the first one. False when no thread could be started. After a fork the
// child starts a thread of its own; the parent's tasks do not end there.
bool run_in_background(std::shared_ptr<BackgroundTask> task);

}  // namespace gnna

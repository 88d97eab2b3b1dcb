// One background thread per process, for work that no caller waits for. A task may read and write host memory only,
// because it may still be running when the process exits.
#pragma once

#include <functional>
#include <memory>

namespace gnna {

struct BackgroundTask {
  virtual ~BackgroundTask() = default;
  virtual void run() = 0;
  virtual void give_up() = 0;  // makes run() return soon; may be called from any thread
};

// Queues a task. Tasks run one after the other, on a thread that the first call starts. Returns false if no thread
// could be started. After a fork the child starts its own thread. It does not finish tasks that the parent queued.
bool run_in_background(std::shared_ptr<BackgroundTask> task);

}  // namespace gnna

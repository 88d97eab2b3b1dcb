// The background thread and its queue. The thread lives as long as the process. A forked child starts its own, and at
// exit the running task is asked to stop and joined.
#include "plan/background.h"

#include <pthread.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>

namespace gnna {
namespace {

class Worker {
 public:
  Worker() : thread_([this] { loop(); }) {}

  void submit(std::shared_ptr<BackgroundTask> task) {
    const std::lock_guard<std::mutex> lock(mutex_);
    queue_.push_back(std::move(task));
    wake_.notify_one();
  }

  void finish() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      ending_ = true;
      queue_.clear();
      if (running_) running_->give_up();
      wake_.notify_one();
    }
    thread_.join();
  }

  const pid_t owner = getpid();

 private:
  void loop() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (!ending_) {
      if (queue_.empty()) {
        wake_.wait(lock);
        continue;
      }
      running_ = std::move(queue_.front());
      queue_.pop_front();
      lock.unlock();
      running_->run();
      lock.lock();
      running_.reset();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::shared_ptr<BackgroundTask>> queue_;
  std::shared_ptr<BackgroundTask> running_;
  bool ending_ = false;
  std::thread thread_;  // last member, because it uses the ones above
};

// Guards `worker`. Held over a fork, so that the child does not inherit it locked by a thread that only the parent has.
std::mutex& guard() {
  static std::mutex* mutex = [] {
    auto* made = new std::mutex;
    pthread_atfork([] { guard().lock(); }, [] { guard().unlock(); }, [] { guard().unlock(); });
    return made;
  }();
  return *mutex;
}

Worker* worker = nullptr;

}  // namespace

bool run_in_background(std::shared_ptr<BackgroundTask> task) {
  const std::lock_guard<std::mutex> lock(guard());
  if (!worker || worker->owner != getpid()) {  // in a forked child the parent's worker has no thread
    const bool first = worker == nullptr;
    try {
      worker = new Worker;
    } catch (const std::system_error&) {
      return false;
    }
    // Exit handlers run in reverse order of registration. The task therefore ends before the framework's static
    // objects, which exist already, are destroyed.
    if (first)
      std::atexit([] {
        if (worker->owner == getpid()) worker->finish();
      });
  }
  worker->submit(std::move(task));
  return true;
}

}  // namespace gnna

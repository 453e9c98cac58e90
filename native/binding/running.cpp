#include "binding/running.h"

#include <cstdlib>
#include <mutex>
#include <set>

namespace cellcam::binding {

namespace {

struct All {
  std::mutex mutex;
  std::set<RunningThread*> threads;
};

void finish_all();

All& all() {
  static auto* threads = [] {
    // Registered after LibTorch was loaded, so it runs before LibTorch's own static destructors.
    std::atexit(finish_all);
    return new All;  // never destroyed
  }();
  return *threads;
}

void finish_all() {
  const std::lock_guard lock(all().mutex);
  for (RunningThread* thread : all().threads) thread->finish();
}

}  // namespace

RunningThread::RunningThread(std::function<void()> body, std::function<void()> cancel)
    : cancel_(std::move(cancel)), thread_(std::move(body)) {
  const std::lock_guard lock(all().mutex);
  all().threads.insert(this);
}

RunningThread::~RunningThread() {
  {
    const std::lock_guard lock(all().mutex);
    all().threads.erase(this);
  }
  finish();
}

void RunningThread::join() {
  if (thread_.joinable()) thread_.join();
}

void RunningThread::finish() {
  if (thread_.joinable()) cancel_();
  join();
}

}  // namespace cellcam::binding

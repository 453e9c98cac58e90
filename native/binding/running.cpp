#include "binding/running.h"

#include <mutex>
#include <set>

namespace cellcam::binding {

namespace {

struct All {
  std::mutex mutex;
  std::set<RunningThread*> threads;
};

All& all() {
  static auto* threads = new All;  // never destroyed: threads may outlive static destructors
  return *threads;
}

}  // namespace

void finish_running_threads() {
  const std::lock_guard lock(all().mutex);
  for (RunningThread* thread : all().threads) thread->finish();
}

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

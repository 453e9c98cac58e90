#include "training/batch_queue.h"

#include <chrono>

namespace cellcam::training {

BatchQueue::BatchQueue(std::uint8_t* ring, std::int64_t slots, std::int64_t slot_bytes, std::int64_t first_batch,
                       std::int64_t end_batch)
    : ring_(ring), slot_bytes_(slot_bytes), end_batch_(end_batch), next_to_fill_(first_batch), next_to_take_(first_batch) {
  for (std::int64_t slot = 0; slot < slots; ++slot) free_slots_.push_back(slot);
}

BatchQueue::Acquired BatchQueue::acquire(int wait_ms) {
  std::unique_lock lock(mutex_);
  const auto over = [this] { return closed_ || failure_ || next_to_fill_ >= end_batch_; };
  changed_.wait_for(lock, std::chrono::milliseconds(wait_ms), [&] { return over() || !free_slots_.empty(); });
  if (over()) return {std::nullopt, true};
  if (free_slots_.empty()) return {std::nullopt, false};
  const Lease lease{next_to_fill_++, free_slots_.front()};
  free_slots_.pop_front();
  ++filling_;
  return {lease, false};
}

void BatchQueue::publish(const Lease& lease) {
  const std::lock_guard lock(mutex_);
  filled_[lease.batch] = lease.slot;
  --filling_;
  changed_.notify_all();
}

void BatchQueue::fail(std::exception_ptr error) {
  const std::lock_guard lock(mutex_);
  if (!failure_) failure_ = std::move(error);
  changed_.notify_all();
}

std::optional<Lease> BatchQueue::take() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return is_ready(); });
  return take_ready().lease;
}

BatchQueue::Acquired BatchQueue::try_take() {
  const std::lock_guard lock(mutex_);
  return is_ready() ? take_ready() : Acquired{std::nullopt, false};
}

BatchQueue::Acquired BatchQueue::take_ready() {
  if (failure_) std::rethrow_exception(failure_);
  if (over()) return {std::nullopt, true};
  const auto found = filled_.find(next_to_take_);
  const Lease lease{found->first, found->second};
  filled_.erase(found);
  ++next_to_take_;
  reading_ = true;
  return {lease, false};
}

void BatchQueue::release(const Lease& lease) {
  const std::lock_guard lock(mutex_);
  free_slots_.push_back(lease.slot);
  reading_ = false;
  changed_.notify_all();
}

void BatchQueue::close() {
  std::unique_lock lock(mutex_);
  closed_ = true;
  changed_.notify_all();
  changed_.wait(lock, [this] { return !reading_; });
}

bool BatchQueue::closed() const {
  const std::lock_guard lock(mutex_);
  return closed_;
}

std::int64_t BatchQueue::filling() const {
  const std::lock_guard lock(mutex_);
  return filling_;
}

}  // namespace cellcam::training

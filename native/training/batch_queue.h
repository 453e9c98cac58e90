#pragma once
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <optional>

namespace cellcam::training {

// A batch in a slot of the ring.
struct Lease {
  std::int64_t batch;
  std::int64_t slot;
};

// Hands the slots of a ring of batches from loader threads (producers) to one training thread (consumer). Batches are given out
// to producers in ascending order and reach the consumer in that order whatever the number of producers. The ring's memory
// belongs to the caller; after close() returns, no consumer reads it any more.
class BatchQueue {
 public:
  // Batches first_batch .. end_batch - 1; the ring has `slots` slots of slot_bytes each.
  BatchQueue(std::uint8_t* ring, std::int64_t slots, std::int64_t slot_bytes, std::int64_t first_batch,
             std::int64_t end_batch);

  // Producers. acquire waits at most wait_ms for a free slot: a loader thread must come back to JavaScript now and then, where
  // it can be terminated. `finished` says that no batch is left to fill or that the queue was closed.
  struct Acquired {
    std::optional<Lease> lease;
    bool finished;
  };
  Acquired acquire(int wait_ms);
  std::uint8_t* slot(const Lease& lease) const { return ring_ + lease.slot * slot_bytes_; }
  void publish(const Lease& lease);
  // Ends the run: the consumer gets this error instead of its next batch. The first failure counts.
  void fail(std::exception_ptr error);

  // Consumer. take blocks for the next batch in order, try_take does not; no lease at the end or when closed. Between taking and
  // release the consumer may read the slot; close() waits for the release.
  std::optional<Lease> take();
  Acquired try_take();
  void release(const Lease& lease);

  void close();
  bool closed() const;
  // Slots that producers have acquired and not published: after close() only these are still written.
  std::int64_t filling() const;

 private:
  bool over() const { return failure_ || closed_ || next_to_take_ >= end_batch_; }
  bool is_ready() const { return over() || filled_.count(next_to_take_) > 0; }
  Acquired take_ready();

  std::uint8_t* const ring_;
  const std::int64_t slot_bytes_;
  const std::int64_t end_batch_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::int64_t> free_slots_;
  std::map<std::int64_t, std::int64_t> filled_;  // batch -> slot
  std::int64_t next_to_fill_;
  std::int64_t next_to_take_;
  std::int64_t filling_ = 0;
  bool reading_ = false;
  bool closed_ = false;
  std::exception_ptr failure_;
};

}  // namespace cellcam::training

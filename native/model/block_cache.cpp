#include "model/block_cache.h"

#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <mutex>
#include <unordered_map>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "model/switches.h"

namespace cellcam::model {

namespace {

constexpr std::size_t kSmallest = std::size_t{1} << 18;  // what lies below, malloc keeps by itself
constexpr std::size_t kHugePage = std::size_t{1} << 21;
// What blocks are aligned to; small allocations seldom are.
#ifdef __linux__
constexpr std::uintptr_t kAlignment = 4096;
#else
constexpr std::uintptr_t kAlignment = 1;
#endif

// Sizes in eighths of a power of two, so that blocks fit tensors of nearly their size.
std::size_t rounded(std::size_t bytes) {
  std::size_t step = kSmallest / 8;
  while (step * 16 <= bytes) step *= 2;
  return (bytes + step - 1) / step * step;
}

void* new_block(std::size_t bytes) {
#ifdef __linux__
  void* block = nullptr;
  const bool huge = bytes >= kHugePage;
  if (posix_memalign(&block, huge ? kHugePage : kAlignment, bytes) != 0) return nullptr;
  if (huge) madvise(block, bytes, MADV_HUGEPAGE);  // advice only: any answer will do
  return block;
#else
  return c10::alloc_cpu(bytes);
#endif
}

void delete_block(void* block) {
#ifdef __linux__
  std::free(block);
#else
  c10::free_cpu(block);
#endif
}

// Any thread may allocate and free; nothing here is ever destroyed, as tensors are freed until the process ends.
class Allocator : public c10::Allocator {
 public:
  static Allocator& instance() {
    static auto* allocator = new Allocator;
    return *allocator;
  }

  c10::DataPtr allocate(std::size_t bytes) override {
    void* data = bytes < kSmallest ? c10::alloc_cpu(bytes) : take(rounded(bytes));
    return {data, data, &give, at::Device(at::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &give; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { default_copy_data(to, from, bytes); }

  void begin() {
    const std::lock_guard lock(mutex_);
    if (users_++ == 0 && !installed_) c10::SetCPUAllocator(this, /*priority=*/1), installed_ = true;
  }
  void end() {
    const std::lock_guard lock(mutex_);
    if (--users_ == 0) drop(), peak_ = 0;
  }

 private:
  void* take(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    void* block = nullptr;
    if (const auto found = free_.find(bytes); found != free_.end() && !found->second.empty()) {
      block = found->second.back();
      found->second.pop_back();
      free_bytes_ -= bytes;
    } else {
      if (used_bytes_ + free_bytes_ + bytes > 2 * peak_) drop();  // blocks of sizes that nobody asks for any more
      block = new_block(bytes);
      if (block == nullptr) drop(), block = new_block(bytes);
      if (block == nullptr) throw std::bad_alloc();
    }
    used_bytes_ += bytes;
    peak_ = std::max(peak_, used_bytes_);
    sizes_[block] = bytes;
    return block;
  }

  static void give(void* data) {
    if (reinterpret_cast<std::uintptr_t>(data) % kAlignment != 0 || !instance().give_block(data)) c10::free_cpu(data);
  }

  bool give_block(void* block) {
    const std::lock_guard lock(mutex_);
    const auto found = sizes_.find(block);
    if (found == sizes_.end()) return false;
    const std::size_t bytes = found->second;
    sizes_.erase(found);
    used_bytes_ -= bytes;
    if (users_ == 0) {
      delete_block(block);
    } else {
      free_[bytes].push_back(block);
      free_bytes_ += bytes;
    }
    return true;
  }

  void drop() {
    for (const auto& [bytes, blocks] : free_) {
      for (void* block : blocks) delete_block(block);
    }
    free_.clear();
    free_bytes_ = 0;
  }

  std::mutex mutex_;
  std::map<std::size_t, std::vector<void*>> free_;
  std::unordered_map<void*, std::size_t> sizes_;  // of blocks in use
  std::size_t used_bytes_ = 0, free_bytes_ = 0, peak_ = 0;
  int users_ = 0;
  bool installed_ = false;
};

bool enabled() {
  static const bool on = switched_on("CELLCAM_BLOCK_CACHE");
  return on;
}

}  // namespace

BlockCache::BlockCache() {
  if (enabled()) Allocator::instance().begin();
}

BlockCache::~BlockCache() {
  if (enabled()) Allocator::instance().end();
}

}  // namespace cellcam::model

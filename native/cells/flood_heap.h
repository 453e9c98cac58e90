#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace cellcam::cells {

// The binary heap of scikit-image's watershed. An entry is value, age and pixel in one word; only value and age are compared, so
// that entries of one value and age, which only markers have, leave in the order that the moves of this heap give them.
class FloodHeap {
  static constexpr int kIndexBits = 28, kAgeBits = 28;

 public:
  // More cannot be: an index leaves a bit for kEnclosed, and a pixel that each of its neighbours pushes takes four ages.
  static constexpr std::int64_t kPixels = std::int64_t{1} << (kAgeBits - 2);

  static std::uint64_t entry(std::uint64_t value, std::uint64_t age, std::uint64_t index) {
    return value << (kAgeBits + kIndexBits) | age << kIndexBits | index;
  }
  static std::uint64_t key(std::uint64_t entry) { return entry >> kIndexBits; }
  static std::int64_t index(std::uint64_t entry) { return static_cast<std::int64_t>(entry & ((1ull << kIndexBits) - 1) & ~kEnclosed); }
  static std::uint8_t value(std::uint64_t entry) { return static_cast<std::uint8_t>(entry >> (kAgeBits + kIndexBits)); }
  static bool is_marker(std::uint64_t entry) { return (key(entry) & ((1ull << kAgeBits) - 1)) == 0; }

  // In an entry: none of the pixel's neighbours is to be labelled.
  static constexpr std::uint64_t kEnclosed = 1ull << (kIndexBits - 1);

  // Of at most `room` entries.
  explicit FloodHeap(std::int64_t room) : entries_(std::make_unique_for_overwrite<std::uint64_t[]>(static_cast<std::size_t>(room) + 1)) {}

  void push(std::uint64_t entry) {
    std::uint64_t* const e = entries_.get();
    std::size_t child = size_++;
    e[size_] = kEnd;
    while (child > 0) {
      const std::size_t parent = (child - 1) / 2;
      if (key(entry) >= key(e[parent])) break;
      e[child] = e[parent];
      child = parent;
    }
    e[child] = entry;
  }

  std::uint64_t pop() {
    const std::uint64_t top = entries_[0], last = take_last();
    if (size_ > 0) sink(0, last);
    return top;
  }

  // Pops all markers of the value of the top, which is one, and hands each to use(entry), which may push what is greater.
  template <typename Use>
  void pop_ties(Use&& use) {
    ties_.clear();
    next_tie_ = 0;
    replaced_ = kEnd;
    pop_ties_below(0, key(top()), use);
  }

  bool empty() const { return size_ == 0; }
  std::uint64_t top() const { return entries_[0]; }
  // In no order.
  std::span<const std::uint64_t> entries() const { return {entries_.get(), size_}; }

 private:
  static constexpr std::uint64_t kEnd = ~0ull;  // behind the last: what a parent of one child reads as its other one

  std::uint64_t take_last() {
    const std::uint64_t last = entries_[--size_];
    entries_[size_] = kEnd;
    return last;
  }

  void sink(std::size_t at, std::uint64_t entry) {
    std::uint64_t* const e = entries_.get();
    for (std::size_t child = 2 * at + 1; child < size_; child = 2 * at + 1) {
      child += key(e[child + 1]) < key(e[child]);
      if (key(e[child]) >= key(entry)) break;
      e[at] = e[child];
      at = child;
    }
    e[at] = entry;
  }

  // Entries of the least key are a tree from the top down. A pop moves the left one of their children up, if there is one, else the
  // right one, and so on down, and into the lowest place sinks the last entry: they leave in preorder and their places are filled
  // in postorder. So nothing need be moved but the last entries, and most sink from far down. A last entry of the least key stays
  // at the top instead, leaves next, and the tree has lost its place.
  template <typename Use>
  void pop_ties_below(std::size_t at, std::uint64_t tie, Use& use) {
    ties_.push_back(entries_[at]);
    const std::size_t left = 2 * at + 1, right = left + 1;
    if (left < size_ && key(entries_[left]) == tie) pop_ties_below(left, tie, use);
    if (right < size_ && key(entries_[right]) == tie) pop_ties_below(right, tie, use);
    for (bool filled = false; !filled;) {
      const std::uint64_t popped = replaced_ != kEnd ? std::exchange(replaced_, kEnd) : ties_[next_tie_++];
      const std::uint64_t last = take_last();
      if (key(last) != tie) {
        sink(at, last);
        filled = true;
      } else if (size_ == 0) {
        filled = true;
      } else {
        replaced_ = last;
        filled = size_ == at;  // it was this place's own, the latest reached
        if (filled) ties_.pop_back();
      }
      use(popped);
    }
  }

  std::unique_ptr<std::uint64_t[]> entries_;
  std::vector<std::uint64_t> ties_;  // those of the tree that have been reached on the way down
  std::size_t next_tie_ = 0;
  std::uint64_t replaced_ = kEnd;  // the tie that a pop has put at the top, until it is popped
  std::size_t size_ = 0;
};

}  // namespace cellcam::cells

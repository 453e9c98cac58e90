#pragma once
#include <cstdint>

namespace cellcam::model::fused {

// Asks the memory for what will be read soon, into the cache of this level. Any address will do. Compilers without a word for it do nothing.
template <int level>
void ask_for([[maybe_unused]] const void* x) {
#ifdef __GNUC__
  __builtin_prefetch(x, /*rw=*/0, /*locality=*/4 - level);
#endif
}

// Asks the memory for rows that will be packed later, into the second cache: a cache line at a time, between other work that is done in `turns`.
class Ahead {
 public:
  // `rows` of `columns` floats, which begin `step` floats after each other.
  void add(const float* first, std::int64_t step, std::int64_t rows, std::int64_t columns) {
    if (rows > 0 && columns > 0) regions_[count_++] = {first, step, rows, columns, 0};
    lines_ += rows * ((columns + kLine - 1) / kLine);
  }
  void share(std::int64_t turns) { each_ = (lines_ + turns - 1) / turns; }
  // How many lines to ask for in a turn.
  std::int64_t each() const { return each_; }

  void ask() {
    if (now_ == count_) return;
    Region& region = regions_[now_];
    ask_for<2>(region.row + region.column);
    region.column += kLine;
    if (region.column < region.columns) return;
    region.column = 0;
    region.row += region.step;
    if (--region.rows == 0) ++now_;
  }
  void ask(std::int64_t lines) {
    for (; lines > 0; --lines) ask();
  }

 private:
  static constexpr std::int64_t kLine = 16;  // floats of a cache line
  struct Region {
    const float* row;
    std::int64_t step, rows, columns, column;
  };
  Region regions_[2];
  int count_ = 0, now_ = 0;
  std::int64_t lines_ = 0, each_ = 0;
};

}  // namespace cellcam::model::fused

#pragma once

namespace cellcam::model::fused {

// Asks the memory for what will be read soon, into the cache of this level. Any address will do. Compilers without a word for it do nothing.
template <int level>
void ask_for([[maybe_unused]] const void* x) {
#ifdef __GNUC__
  __builtin_prefetch(x, /*rw=*/0, /*locality=*/4 - level);
#endif
}

}  // namespace cellcam::model::fused

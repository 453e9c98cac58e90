#pragma once

namespace cellcam::model {

// While one lives, the memory of large CPU tensors goes from one tensor to the next instead of back to the system, which would have to
// fault it in and clear it again, page by page: half the time of a prediction. When the last one ends, what is free goes back.
// It never holds more than twice what was in use at the peak. CELLCAM_BLOCK_CACHE=0 turns it off.
class BlockCache {
 public:
  BlockCache();
  ~BlockCache();
  BlockCache(const BlockCache&) = delete;
  BlockCache& operator=(const BlockCache&) = delete;
};

}  // namespace cellcam::model

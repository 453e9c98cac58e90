#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace cellcam::training::augment {

// The operations of albumentations 0.5.2 that the training of the Python original draws from, by their names there, and two
// beyond it. Sizes are pixels, x is the column, pixel centres are integers, borders are mirrored without repeating the edge.
//
//   op                        values                                            stage
//   RandomCrop                y1 x1 height width [h_start w_start]              crop
//   RandomResizedCrop         y1 x1 height width (real) out                     crop   that rectangle to out x out, bilinear
//   GaussNoise                variance seed                                     noise  independent for pixels and channels
//   CoarseDropout             fill, then x1 y1 x2 y2 a hole                     noise
//   IAAAdditiveGaussianNoise  sigma seed                                        noise  one value a pixel for all channels
//   HorizontalFlip            -                                                 flip
//   RandomRotate90            quarter turns, counter-clockwise                  turn
//   GridDistortion            steps, steps + 1 factors for x, as many for y     warp
//   ShiftScaleRotate          degrees scale dx dy (of width and height)         warp
//   ElasticTransform          alpha sigma seed, x y of three jitters in pixels  warp
//   OpticalDistortion         k                                                 warp
//   IAAAffine                 shear in degrees                                  warp
//   GaussianBlur              side of the kernel, 3 or 5                        blur
//   MotionBlur                side (3 or 5), x y of the line's start and end    blur
//   MedianBlur                side, 3, 5 or 7; border repeated                  blur
//   RandomGamma               gamma                                             tone
//   RandomBrightnessContrast  alpha beta                                        tone
//   ChannelDropout            channels                                          tone   these become 0
enum class Op {
  RandomCrop,
  RandomResizedCrop,
  GaussNoise,
  CoarseDropout,
  IAAAdditiveGaussianNoise,
  HorizontalFlip,
  RandomRotate90,
  GridDistortion,
  ShiftScaleRotate,
  ElasticTransform,
  OpticalDistortion,
  IAAAffine,
  GaussianBlur,
  MotionBlur,
  MedianBlur,
  RandomGamma,
  RandomBrightnessContrast,
  ChannelDropout,
};

// A recipe applies at most one operation a stage, in this order.
enum class Stage { crop, noise, flip, turn, warp, blur, tone, channels, count };

struct Operation {
  Op op;
  std::vector<double> values;
  // Instead of drawing from the seed: (h, w, C) float32 for GaussNoise, (h, w) for IAAAdditiveGaussianNoise, and the
  // displacements (2, h, w), dx before dy, in pixels, for ElasticTransform. On the CPU.
  at::Tensor given;

  double value(std::size_t i) const { return values.at(i); }
  std::int64_t whole(std::size_t i) const { return static_cast<std::int64_t>(values.at(i)); }
};

const char* op_name(Op op);
Op find_op(const std::string& name);  // throws Error ERR_INVALID_ARG
Stage stage_of(Op op);

// What is done to one image: operations in ascending order of their stages, no two of one stage.
using Recipe = std::vector<Operation>;
const Operation* find_stage(const Recipe& recipe, Stage stage);  // nullptr if the recipe leaves it out

// Height and width after the stages before `end`.
std::array<std::int64_t, 2> size_before(const Recipe& recipe, Stage end, std::int64_t height, std::int64_t width);

// A kernel of MotionBlur: bit row * side + column is set where the line from start to end passes.
std::uint32_t motion_line(std::int64_t side, std::int64_t x0, std::int64_t y0, std::int64_t x1, std::int64_t y1);

// The table of RandomGamma or RandomBrightnessContrast.
std::array<std::uint8_t, 256> tone_table(const Operation& operation);

}  // namespace cellcam::training::augment

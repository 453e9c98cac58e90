#include "training/augment/operation.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "error.h"

namespace cellcam::training::augment {

namespace {

struct Known {
  Op op;
  const char* name;
  Stage stage;
};

constexpr Known kKnown[] = {
    {Op::RandomCrop, "RandomCrop", Stage::crop},
    {Op::RandomResizedCrop, "RandomResizedCrop", Stage::crop},
    {Op::GaussNoise, "GaussNoise", Stage::noise},
    {Op::CoarseDropout, "CoarseDropout", Stage::noise},
    {Op::IAAAdditiveGaussianNoise, "IAAAdditiveGaussianNoise", Stage::noise},
    {Op::HorizontalFlip, "HorizontalFlip", Stage::flip},
    {Op::RandomRotate90, "RandomRotate90", Stage::turn},
    {Op::GridDistortion, "GridDistortion", Stage::warp},
    {Op::ShiftScaleRotate, "ShiftScaleRotate", Stage::warp},
    {Op::ElasticTransform, "ElasticTransform", Stage::warp},
    {Op::OpticalDistortion, "OpticalDistortion", Stage::warp},
    {Op::IAAAffine, "IAAAffine", Stage::warp},
    {Op::GaussianBlur, "GaussianBlur", Stage::blur},
    {Op::MotionBlur, "MotionBlur", Stage::blur},
    {Op::MedianBlur, "MedianBlur", Stage::blur},
    {Op::RandomGamma, "RandomGamma", Stage::tone},
    {Op::RandomBrightnessContrast, "RandomBrightnessContrast", Stage::tone},
    {Op::ChannelDropout, "ChannelDropout", Stage::channels},
};

const Known& known(Op op) { return kKnown[static_cast<std::size_t>(op)]; }

std::uint8_t tone(const Operation& operation, int i) {
  if (operation.op == Op::RandomGamma) {
    return static_cast<std::uint8_t>(255.0 * std::pow(i * (1.0 / 255.0), operation.value(0)));
  }
  // In float32, step by step, as the original does.
  const float scaled = static_cast<float>(i) * static_cast<float>(operation.value(0));
  const float moved = scaled + static_cast<float>(operation.value(1) * 255.0);
  return static_cast<std::uint8_t>(std::clamp(moved, 0.0f, 255.0f));
}

}  // namespace

const char* op_name(Op op) { return known(op).name; }

Op find_op(const std::string& name) {
  for (const Known& k : kKnown) {
    if (name == k.name) return k.op;
  }
  throw Error("ERR_INVALID_ARG", std::string("there is no operation ").append(name));
}

Stage stage_of(Op op) { return known(op).stage; }

const Operation* find_stage(const Recipe& recipe, Stage stage) {
  for (const Operation& operation : recipe) {
    if (stage_of(operation.op) == stage) return &operation;
  }
  return nullptr;
}

std::array<std::int64_t, 2> size_before(const Recipe& recipe, Stage end, std::int64_t height, std::int64_t width) {
  for (const Operation& operation : recipe) {
    if (stage_of(operation.op) >= end) break;
    if (operation.op == Op::RandomCrop) height = operation.whole(2), width = operation.whole(3);
    if (operation.op == Op::RandomResizedCrop) height = width = operation.whole(4);
    if (operation.op == Op::RandomRotate90 && operation.whole(0) % 2 == 1) std::swap(height, width);
  }
  return {height, width};
}

// Bresenham's line as OpenCV draws it: from left to right, which decides ties.
std::uint32_t motion_line(std::int64_t side, std::int64_t x0, std::int64_t y0, std::int64_t x1, std::int64_t y1) {
  if (x1 < x0) std::swap(x0, x1), std::swap(y0, y1);
  const std::int64_t down = y1 < y0 ? -1 : 1;
  std::int64_t length = x1 - x0, drift = std::abs(y1 - y0);
  const bool steep = drift > length;
  if (steep) std::swap(length, drift);
  std::uint32_t cells = 0;
  std::int64_t error = length - 2 * drift;
  for (std::int64_t i = 0; i <= length; ++i) {
    cells |= std::uint32_t{1} << (y0 * side + x0);
    const bool aside = error < 0;
    error += (aside ? 2 * length : 0) - 2 * drift;
    if (steep || aside) y0 += down;
    if (!steep || aside) x0 += 1;
  }
  return cells;
}

std::array<std::uint8_t, 256> tone_table(const Operation& operation) {
  std::array<std::uint8_t, 256> table{};
  for (int i = 0; i < 256; ++i) table[static_cast<std::size_t>(i)] = tone(operation, i);
  return table;
}

}  // namespace cellcam::training::augment

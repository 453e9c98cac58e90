// The recipes of a batch by tensor operations, a stage at a time over all images that have it; no loop over pixels or images,
// but for the numbers of their recipes.
#include <ATen/Functions.h>

#include <cmath>

#include "training/augment/augment.h"
#include "training/augment/noise.h"
#include "training/augment/warp.h"
#include "training/augment/window_median.h"

namespace cellcam::training::augment {

namespace {

// Some images of a batch and what is done to them.
struct Group {
  std::vector<std::int64_t> rows;
  std::vector<const Operation*> operations;

  bool empty() const { return rows.empty(); }
  std::int64_t count() const { return static_cast<std::int64_t>(rows.size()); }
};

at::Tensor to_device(const at::Tensor& host, at::Device device) { return host.to(device, /*non_blocking=*/true); }

// Numbers of the recipes, on the device.
at::Tensor numbers(const std::vector<double>& values, at::IntArrayRef shape, at::Device device) {
  return to_device(at::tensor(values, at::kFloat).view(shape), device);
}

at::Tensor indices(const std::vector<std::int64_t>& values, at::Device device) { return to_device(at::tensor(values, at::kLong), device); }

template <typename Wanted>
Group group_of(const std::vector<Recipe>& recipes, Stage stage, const Wanted& wanted) {
  Group group;
  for (std::size_t i = 0; i < recipes.size(); ++i) {
    const Operation* o = find_stage(recipes[i], stage);
    if (o == nullptr || !wanted(*o)) continue;
    group.rows.push_back(static_cast<std::int64_t>(i));
    group.operations.push_back(o);
  }
  return group;
}

Group group_of(const std::vector<Recipe>& recipes, Stage stage, Op op) {
  return group_of(recipes, stage, [op](const Operation& o) { return o.op == op; });
}

// Replaces the group's images by f of them.
template <typename F>
void change(at::Tensor& images, const Group& group, const F& f) {
  if (group.empty()) return;
  if (group.count() == images.size(0)) {
    images = f(images);
    return;
  }
  const at::Tensor rows = indices(group.rows, images.device());
  images.index_copy_(0, rows, f(images.index_select(0, rows)));
}

at::Tensor to_bytes(const at::Tensor& values) { return values.clamp(0, 255).to(at::kByte); }

// (n, H, W, C) bytes to (n, C, H, W) floats.
at::Tensor to_planes(const at::Tensor& images) { return images.permute({0, 3, 1, 2}).to(at::kFloat).contiguous(); }
at::Tensor from_planes(const at::Tensor& planes) { return planes.round().clamp_(0, 255).to(at::kByte).permute({0, 2, 3, 1}).contiguous(); }

// ---- sampling

// Coordinates (n, h, w, 2) of source pixels, x before y, as grid_sample wants them: -1 and 1 are the first and last centres.
at::Tensor sampled(const at::Tensor& images, const at::Tensor& coordinates) {
  const auto last_x = static_cast<double>(std::max<std::int64_t>(images.size(2) - 1, 1)), last_y = static_cast<double>(std::max<std::int64_t>(images.size(1) - 1, 1));
  const at::Tensor grid = coordinates * numbers({2 / last_x, 2 / last_y}, {2}, images.device()) - 1;
  return from_planes(at::grid_sampler(to_planes(images), grid, /*bilinear*/ 0, /*reflection*/ 2, /*align_corners=*/true));
}

struct Lattice {
  at::Tensor x, y;  // (1, 1, w) and (1, h, 1)
  Lattice(std::int64_t height, std::int64_t width, at::Device device)
      : x(at::arange(width, at::TensorOptions(at::kFloat).device(device)).view({1, 1, width})),
        y(at::arange(height, at::TensorOptions(at::kFloat).device(device)).view({1, height, 1})) {}
};

at::Tensor affine_coordinates(const std::vector<Sampling>& samplings, const Lattice& lattice) {
  std::vector<double> values;
  for (const Sampling& s : samplings) values.insert(values.end(), s.affine.begin(), s.affine.end());
  const at::Tensor m = numbers(values, {static_cast<std::int64_t>(samplings.size()), 6, 1, 1}, lattice.x.device());
  const auto line = [&](std::int64_t first) { return m.select(1, first) * lattice.x + (m.select(1, first + 1) * lattice.y + m.select(1, first + 2)); };
  return at::stack({line(0), line(3)}, -1);
}

at::Tensor axis_coordinates(const std::vector<Sampling>& samplings, const Lattice& lattice) {
  const auto n = static_cast<std::int64_t>(samplings.size());
  const std::int64_t h = lattice.y.size(1), w = lattice.x.size(2);
  std::vector<double> xs, ys;
  for (const Sampling& s : samplings) {
    xs.insert(xs.end(), s.map_x.begin(), s.map_x.end());
    ys.insert(ys.end(), s.map_y.begin(), s.map_y.end());
  }
  return at::stack({numbers(xs, {n, 1, w}, lattice.x.device()).expand({n, h, w}), numbers(ys, {n, h, 1}, lattice.x.device()).expand({n, h, w})}, -1);
}

at::Tensor radial_coordinates(const std::vector<Sampling>& samplings, const Lattice& lattice) {
  const auto h = static_cast<double>(lattice.y.size(1)), w = static_cast<double>(lattice.x.size(2));
  std::vector<double> values;
  for (const Sampling& s : samplings) values.push_back(s.k);
  const at::Tensor k = numbers(values, {static_cast<std::int64_t>(samplings.size()), 1, 1}, lattice.x.device());
  const at::Tensor u = (lattice.x - (w - 1) / 2) / w, v = (lattice.y - (h - 1) / 2) / h;
  const at::Tensor r2 = u * u + v * v, gain = 1 + k * r2 + k * r2 * r2;
  return at::stack({w * u * gain + w / 2, h * v * gain + h / 2}, -1);
}

// The images of a group with the sampling of each: one gather for all of them.
struct Sampled {
  std::vector<std::int64_t> rows;
  at::Tensor coordinates;  // (n, h, w, 2)
};

Sampled sampled_rows(const Group& group, std::int64_t in_height, std::int64_t in_width, const Lattice& lattice) {
  using Kind = Sampling::Kind;
  Sampled out;
  std::vector<at::Tensor> parts;
  for (const Kind kind : {Kind::affine, Kind::axes, Kind::radial}) {
    std::vector<Sampling> samplings;
    for (std::size_t i = 0; i < group.rows.size(); ++i) {
      const auto s = sampling_of(*group.operations[i], in_height, in_width);
      if (!s || s->kind != kind) continue;
      samplings.push_back(*s);
      out.rows.push_back(group.rows[i]);
    }
    if (samplings.empty()) continue;
    parts.push_back(kind == Kind::affine ? affine_coordinates(samplings, lattice)
                    : kind == Kind::axes ? axis_coordinates(samplings, lattice)
                                         : radial_coordinates(samplings, lattice));
  }
  if (!parts.empty()) out.coordinates = at::cat(parts);
  return out;
}

void warp(at::Tensor& images, const std::vector<Recipe>& recipes) {
  const std::int64_t h = images.size(1), w = images.size(2);
  const Lattice lattice(h, w, images.device());
  const Sampled all = sampled_rows(group_of(recipes, Stage::warp, [](const Operation&) { return true; }), h, w, lattice);
  if (all.coordinates.defined()) {
    const at::Tensor rows = indices(all.rows, images.device());
    images.index_copy_(0, rows, sampled(images.index_select(0, rows), all.coordinates));
  }
  const Group elastic = group_of(recipes, Stage::warp, Op::ElasticTransform);
  change(images, elastic, [&](const at::Tensor& chosen) {
    const at::Tensor field = displacements(elastic.operations, h, w, images.device());
    return sampled(chosen, at::stack({field.select(1, 0) + lattice.x, field.select(1, 1) + lattice.y}, -1));
  });
}

// ---- crop, flip and turns: a gather of whole pixels

at::Tensor take_pixels(const at::Tensor& images, const at::Tensor& rows, const at::Tensor& columns) {
  const std::int64_t b = images.size(0), h = images.size(1), w = images.size(2), c = images.size(3);
  const at::Tensor first = at::arange(b, rows.options()).view({b, 1, 1}) * (h * w);
  const at::Tensor pixel = first + rows * w + columns;
  return images.reshape({b * h * w, c}).index_select(0, pixel.flatten()).view({b, pixel.size(1), pixel.size(2), c});
}

void crop(at::Tensor& images, const std::vector<Recipe>& recipes) {
  const Operation* first = find_stage(recipes.front(), Stage::crop);
  if (first == nullptr) return;
  const at::Device device = images.device();
  if (first->op == Op::RandomResizedCrop) {
    const Group all = group_of(recipes, Stage::crop, Op::RandomResizedCrop);
    const std::int64_t out = first->whole(4);
    images = sampled(images, sampled_rows(all, images.size(1), images.size(2), Lattice(out, out, device)).coordinates);
    return;
  }
  std::vector<std::int64_t> y1, x1;
  for (const Recipe& recipe : recipes) {
    const Operation* o = find_stage(recipe, Stage::crop);
    y1.push_back(o->whole(0));
    x1.push_back(o->whole(1));
  }
  const at::Tensor y = indices(y1, device).view({-1, 1, 1}) + at::arange(first->whole(2), at::TensorOptions(at::kLong).device(device)).view({1, -1, 1});
  const at::Tensor x = indices(x1, device).view({-1, 1, 1}) + at::arange(first->whole(3), at::TensorOptions(at::kLong).device(device)).view({1, 1, -1});
  images = take_pixels(images, y, x);
}

void flip_and_turn(at::Tensor& images, const std::vector<Recipe>& recipes) {
  const Group flips = group_of(recipes, Stage::flip, Op::HorizontalFlip);
  change(images, flips, [](const at::Tensor& chosen) { return chosen.flip({2}); });
  for (std::int64_t turns = 1; turns < 4; ++turns) {
    const Group group = group_of(recipes, Stage::turn, [turns](const Operation& o) { return o.whole(0) == turns; });
    change(images, group, [turns](const at::Tensor& chosen) { return at::rot90(chosen, turns, {1, 2}); });
  }
}

// ---- noise

std::vector<std::uint64_t> seeds_of(const Group& group) {
  std::vector<std::uint64_t> seeds;
  for (const Operation* o : group.operations) seeds.push_back(static_cast<std::uint64_t>(o->value(1)));
  return seeds;
}

// What was given, or drawn from the seeds and scaled: (n, ...) float32.
template <typename Scale>
at::Tensor noise_of(const Group& group, at::IntArrayRef shape, at::Device device, const Scale& scale) {
  if (group.operations.front()->given.defined()) {
    std::vector<at::Tensor> given;
    for (const Operation* o : group.operations) given.push_back(o->given);
    return to_device(at::stack(given), device).view(shape);
  }
  std::vector<double> sigmas;
  for (const Operation* o : group.operations) sigmas.push_back(scale(o->value(0)));
  std::int64_t places = 1;
  for (const std::int64_t n : shape.slice(1)) places *= n;
  return normal_fields(seeds_of(group), places, device).view(shape) * numbers(sigmas, {group.count(), 1, 1, 1}, device);
}

void make_holes(const Operation& o, const at::Tensor& image) {
  for (std::size_t i = 1; i + 3 < o.values.size(); i += 4) {
    image.slice(0, o.whole(i + 1), o.whole(i + 3)).slice(1, o.whole(i), o.whole(i + 2)).fill_(o.value(0));
  }
}

void noise(at::Tensor& images, const std::vector<Recipe>& recipes) {
  const std::int64_t h = images.size(1), w = images.size(2), c = images.size(3);
  const at::Device device = images.device();
  const Group gauss = group_of(recipes, Stage::noise, Op::GaussNoise);
  change(images, gauss, [&](const at::Tensor& chosen) {
    return to_bytes(noise_of(gauss, {gauss.count(), h, w, c}, device, [](double variance) { return std::sqrt(variance); }).add_(chosen));
  });
  const Group shared = group_of(recipes, Stage::noise, Op::IAAAdditiveGaussianNoise);
  change(images, shared, [&](const at::Tensor& chosen) {
    return to_bytes(noise_of(shared, {shared.count(), h, w, 1}, device, [](double sigma) { return sigma; }).round_() + chosen);
  });
  const Group dropout = group_of(recipes, Stage::noise, Op::CoarseDropout);
  for (std::size_t i = 0; i < dropout.rows.size(); ++i) make_holes(*dropout.operations[i], images.select(0, dropout.rows[i]));
}

// ---- blurs

// The kernels (n, side, side) of the group over all channels: a grouped convolution of (1, n C, H, W), a group a plane.
at::Tensor convolved(const at::Tensor& images, const at::Tensor& kernels) {
  const std::int64_t n = images.size(0), h = images.size(1), w = images.size(2), c = images.size(3), side = kernels.size(1), margin = side / 2;
  const at::Tensor planes = at::reflection_pad2d(to_planes(images), {margin, margin, margin, margin});
  const at::Tensor weights = kernels.unsqueeze(1).expand({n, c, side, side}).reshape({n * c, 1, side, side});
  return at::conv2d(planes.view({1, n * c, h + 2 * margin, w + 2 * margin}), weights, at::Tensor(), at::IntArrayRef{1}, at::IntArrayRef{0}, at::IntArrayRef{1}, n * c).view({n, c, h, w});
}

void gaussian_blur(at::Tensor& images, const std::vector<Recipe>& recipes) {
  const Group group = group_of(recipes, Stage::blur, Op::GaussianBlur);
  change(images, group, [&](const at::Tensor& chosen) {
    std::vector<double> rows;  // both sides as five, in sixteenths
    for (const Operation* o : group.operations) {
      const double kThree[] = {0, 4, 8, 4, 0}, kFive[] = {1, 4, 6, 4, 1};
      const double* row = o->whole(0) == 3 ? kThree : kFive;
      rows.insert(rows.end(), row, row + 5);
    }
    const at::Tensor row = numbers(rows, {group.count(), 5, 1}, images.device());
    // Whole sums of 256 parts: exact in float32. Half up.
    const at::Tensor sums = convolved(chosen, row * row.transpose(1, 2));
    return sums.add(128).mul_(1.0 / 256).floor_().clamp_(0, 255).to(at::kByte).permute({0, 2, 3, 1});
  });
}

void motion_blur(at::Tensor& images, const std::vector<Recipe>& recipes) {
  const Group group = group_of(recipes, Stage::blur, Op::MotionBlur);
  change(images, group, [&](const at::Tensor& chosen) {
    std::vector<double> kernels, cells;  // kernels of side 3 in the middle of 5
    for (const Operation* o : group.operations) {
      const std::int64_t side = o->whole(0), margin = (5 - side) / 2;
      const std::uint32_t line = motion_line(side, o->whole(1), o->whole(2), o->whole(3), o->whole(4));
      const std::size_t first = kernels.size();
      kernels.resize(first + 25, 0);
      double count = 0;
      for (std::int64_t i = 0; i < side * side; ++i) {
        if ((line >> i & 1u) == 0) continue;
        kernels[first + static_cast<std::size_t>((i / side + margin) * 5 + i % side + margin)] = 1;
        ++count;
      }
      cells.push_back(1 / count);
    }
    const at::Tensor sums = convolved(chosen, numbers(kernels, {group.count(), 5, 5}, images.device()));
    return from_planes(sums * numbers(cells, {group.count(), 1, 1, 1}, images.device()));
  });
}

void median_blur(at::Tensor& images, const std::vector<Recipe>& recipes) {
  for (const std::int64_t side : {3, 5, 7}) {
    const Group group = group_of(recipes, Stage::blur, [side](const Operation& o) { return o.op == Op::MedianBlur && o.whole(0) == side; });
    change(images, group, [side](const at::Tensor& chosen) { return window_median(chosen, side); });
  }
}

// ---- tone

void tone(at::Tensor& images, const std::vector<Recipe>& recipes) {
  const Group group = group_of(recipes, Stage::tone, [](const Operation&) { return true; });
  change(images, group, [&](const at::Tensor& chosen) {
    at::Tensor tables = at::empty({group.count(), 256}, at::kByte);
    for (std::size_t i = 0; i < group.rows.size(); ++i) {
      const auto table = tone_table(*group.operations[i]);
      std::copy(table.begin(), table.end(), tables.data_ptr<std::uint8_t>() + 256 * i);
    }
    const at::Tensor first = at::arange(group.count(), chosen.options().dtype(at::kInt)).mul_(256).view({-1, 1, 1, 1});
    return to_device(tables, chosen.device()).flatten().index_select(0, (chosen + first).flatten()).view_as(chosen);
  });
}

void drop_channels(at::Tensor& images, const std::vector<Recipe>& recipes) {
  const Group group = group_of(recipes, Stage::channels, [](const Operation&) { return true; });
  for (std::size_t i = 0; i < group.rows.size(); ++i) {
    for (std::size_t k = 0; k < group.operations[i]->values.size(); ++k) {
      images.select(0, group.rows[i]).select(2, group.operations[i]->whole(k)).zero_();
    }
  }
}

}  // namespace

at::Tensor apply_by_tensors(const at::Tensor& given, const std::vector<Recipe>& recipes) {
  at::Tensor images = given;
  crop(images, recipes);
  if (images.is_same(given)) images = given.clone();
  noise(images, recipes);
  flip_and_turn(images, recipes);
  warp(images, recipes);
  gaussian_blur(images, recipes);
  motion_blur(images, recipes);
  median_blur(images, recipes);
  tone(images, recipes);
  drop_channels(images, recipes);
  return images.contiguous();
}

}  // namespace cellcam::training::augment

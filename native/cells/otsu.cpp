#include "cells/otsu.h"

#include <algorithm>

namespace cellcam::cells {

namespace {

constexpr int kBins = 256;

struct Histogram {
  std::array<float, kBins> counts{};  // float32, as there
  std::array<double, kBins> centres{};
};

// Equal bins from the smallest value to the largest; the last one is closed.
Histogram histogram(const std::array<std::int64_t, 256>& counts, double low, double high) {
  std::array<double, kBins + 1> edges;
  const double step = (high - low) / kBins;
  for (int i = 0; i < kBins; ++i) edges[i] = i * step + low;
  edges[kBins] = high;
  Histogram out;
  for (int i = 0; i < kBins; ++i) out.centres[i] = (edges[i] + edges[i + 1]) / 2;
  std::array<std::int64_t, kBins> exact{};
  for (int v = 0; v < 256; ++v) {
    if (counts[v] == 0) continue;
    const auto bin = std::upper_bound(edges.begin(), edges.end(), v / 255.0) - edges.begin() - 1;
    exact[std::min<std::ptrdiff_t>(bin, kBins - 1)] += counts[v];
  }
  for (int i = 0; i < kBins; ++i) out.counts[i] = static_cast<float>(exact[i]);
  return out;
}

}  // namespace

double otsu_threshold(const std::array<std::int64_t, 256>& counts) {
  int low = 0, high = 255;
  while (low < 255 && counts[low] == 0) ++low;
  while (high > low && counts[high] == 0) --high;
  if (low == high) return low / 255.0;
  const Histogram h = histogram(counts, low / 255.0, high / 255.0);
  std::array<float, kBins> below, above;
  std::array<double, kBins> mean_below, mean_above;
  float weight = 0;
  double sum = 0;
  for (int i = 0; i < kBins; ++i) {
    below[i] = weight += h.counts[i];
    mean_below[i] = (sum += h.counts[i] * h.centres[i]) / weight;
  }
  weight = 0;
  sum = 0;
  for (int i = kBins - 1; i >= 0; --i) {
    above[i] = weight += h.counts[i];
    mean_above[i] = (sum += h.counts[i] * h.centres[i]) / weight;
  }
  int best = 0;
  double most = -1;
  for (int i = 0; i + 1 < kBins; ++i) {
    const double apart = mean_below[i] - mean_above[i + 1];
    const double between = below[i] * above[i + 1] * (apart * apart);
    if (between > most) {
      most = between;
      best = i;
    }
  }
  return h.centres[best];
}

}  // namespace cellcam::cells

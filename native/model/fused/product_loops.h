#pragma once
#include <cstdint>

#include "model/fused/prefetch.h"
#include "model/fused/rows.h"

namespace cellcam::model::fused {

// What matrix products of float32 are made of: a tile is some rows by kPanel columns. Of the left matrix what one tile reads lies together as a piece
// (depth, rows), of the right one as a panel (depth, kPanel).

// Where the sums of a tile go: rows that begin `step` floats after each other.
struct SumTile {
  float* sums;
  std::int64_t step;
  std::int64_t rows;      // 1 to those of a piece
  bool added;             // to what is there
  const float* bias;      // for each column; null if there are none, and then no activation
  Slope slope;
  Ahead* ahead;           // this product is one turn of it
};

// `width` values that lie together in each of `depth` rows, which begin `step` floats after each other, to pieces, panels or columns that begin
// `apart` floats after each other.
using Pack = void (*)(const float* x, std::int64_t step, std::int64_t depth, std::int64_t width, float* to, std::int64_t apart);

// Tiles of one kind of factors: float32 as they are, or rounded (integer_loops.h).
struct TileLoops {
  std::int64_t rows;                                      // of a piece
  bool scaled;                                            // whether what is packed depends on all of a tile's depth
  std::int64_t depth;                                     // what is multiplied at a time, at most
  std::int64_t (*piece_size)(std::int64_t depth);         // in floats, and of a panel
  std::int64_t (*panel_size)(std::int64_t depth);
  // The product of a piece and a panel.
  void (*multiply)(const float* piece, const float* panel, std::int64_t depth, const SumTile& to);
  // Zeros fill the last piece; of panels there are whole ones only.
  Pack copy_pieces, copy_panels;
  // The same from `width` rows of `depth` values.
  Pack transpose_pieces, transpose_panels;
};

// What is not zero of kListed values of depth or less, of a row of a left matrix of many zeros. 
// Values are written eight at a time, so there is room after the last.
constexpr std::int64_t kListed = 64;
struct alignas(64) RowList {
  float values[kListed + 8];
  std::uint16_t at[kListed + 8];  // bytes from where a panel begins to its row for this value
  std::int32_t count;
};

struct ProductLoops {
  TileLoops tiles;
  // The product of to.rows listed rows, any number of them, and `panels` panels, up to `wide`, that begin `apart` floats after each other.
  void (*multiply_listed)(const RowList* rows, const float* panel, std::int64_t apart, std::int64_t panels, const SumTile& to);
  std::int64_t wide;
  std::int64_t least_listed;  // depth for lists to pay,
  double most_kept;           // and what share of a matrix may be other than zero: it is multiplied at about this rate
  // `width` columns of `depth` rows, and as many rows of `depth` columns.
  using List = void (*)(const float* x, std::int64_t step, std::int64_t depth, std::int64_t width, RowList* to);
  List list_columns, list_rows;
  // From `width` rows of `depth` values to columns.
  Pack transpose;
  // act(x * scale + shift) of `rows` of `columns` values, to rows that begin `to_step` floats after each other: a multiple of 8, as whole vectors are written.
  void (*scale_act)(const float* x, std::int64_t step, std::int64_t rows, std::int64_t columns, const float* scale, const float* shift, Slope slope, float* to,
                    std::int64_t to_step);
};

// For this CPU; null where it has no such vectors.
const ProductLoops* product_loops();

}  // namespace cellcam::model::fused

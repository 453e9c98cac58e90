#pragma once
#include "model/fused/product_loops.h"

namespace cellcam::model::fused {

// Tiles of factors that are rounded to integers of 16 bits as they are packed: those of a row of the left matrix or a column of the right one, up to
// 256 of depth, share a scale. It lets the Euclidean norm be 46,000 and the largest 32,766 at most, so that no sum of products leaves 32 bits (by the
// inequality of Cauchy and Schwarz): they are exact. A factor that lies at the root of their mean square has some 11.5 bits and a sign. Two are
// multiplied and added by one instruction, summed up by a second, or by the same one with AVX-512's VNNI: half as many multiplications as with floats, in
// the loop alone 1.5 times as fast, or twice. A row or column with a value that is not finite gives NaN alone.
// Method: Das et al., Mixed Precision Training of Convolutional Neural Networks using Integer Operations, 2018, which train residual networks so.
// A piece is scales, in whole vectors of 8 floats, and (depth / 2, rows) pairs, a panel kPanel scales and (depth / 2, kPanel) pairs.

// For this CPU; null where it has neither AVX2 alone nor AVX-512 with VNNI.
const TileLoops* integer_loops();

}  // namespace cellcam::model::fused

#pragma once
#include "model/fused/product_loops.h"

namespace cellcam::model::fused {

// Tiles of factors that are rounded to integers of 16 bits as they are packed: those of a row of the left matrix or a column of the right one, up to
// 256 of depth, share a scale. It lets the Euclidean norm be 46,000 and the largest 32,766 at most, so that no sum of products leaves 32 bits (by the
// inequality of Cauchy and Schwarz): they are exact. A factor that lies at the root of their mean square has some 11.5 bits and a sign. Two are
// multiplied and added by one instruction, summed up by a second: half as many multiplications as with floats, 1.5 times as fast where measured. A row or column with a
// value that is not finite gives NaN alone.
// Method: Das et al., Mixed Precision Training of Convolutional Neural Networks using Integer Operations, 2018, which train residual networks so.
// A piece is 8 floats of scales and (depth / 2, 6) pairs, a panel kPanel scales and (depth / 2, kPanel) pairs.

// For this CPU; null where it has no such vectors.
const TileLoops* integer_loops();

}  // namespace cellcam::model::fused

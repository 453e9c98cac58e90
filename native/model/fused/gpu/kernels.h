#pragma once

namespace cellcam::model::fused::gpu {

// Both C++ and, as the text of `name`, the source that is compiled for the GPU at run time.
#define CELLCAM_SOURCE(name, ...) \
  __VA_ARGS__                     \
  inline constexpr char name[] = #__VA_ARGS__;

// The one argument of each kernel of kernels.inl. Images are (images, pixels, channels), channels in vectors of 8, of one type throughout;
// everything per channel is float32. `per_image`: whether an array has channels for every image instead of once. `slope` as in rows.h.
CELLCAM_SOURCE(
    kArguments,

    // Threads: x over vectors of channels, y over pixels. Blocks: x over channels, y over slices of an image, z over images.
    struct Pixels {
      long long pixels; int channels; int slices;
    };

    // partial (images, slices, 2, channels): sums of x - c and of its squares, c being x's first pixel.
    struct MomentsArguments {
      Pixels size; const void* x; float* partial;
    };

    // y = act(x * scale + shift + residual); residual may be null.
    struct ScaleArguments {
      Pixels size; const void* x; const void* residual; const float* scale; const float* shift; int per_image; float slope;
      void* y;
    };

    // partial (images, slices, 2, channels): sums of g and of g * (x - mean), g being dy where y > 0, else slope * dy.
    struct GradientSumsArguments {
      Pixels size; const void* dy; const void* y; const void* x; const float* mean; float slope; float* partial;
    };

    // dx = g * a + (x - mean) * b + c, b and mean never per image; g itself goes to residual unless that is null.
    struct GradientArguments {
      Pixels size; const void* dy; const void* y; const void* x; const float* a; const float* b; const float* c;
      const float* mean; int per_image; float slope; void* dx; void* residual;
    };

    // sums (images, 2, channels) of partial (images, slices, 2, channels). A thread a number.
    struct ImageSumsArguments {
      int images; int slices; int channels; const float* partial; float* sums;
    };

    // From sums (rows, 2, channels) of MomentsArguments, over `count` pixels: the batch norm's statistics, y = x * scale + shift, and the
    // running statistics moved. Threads: x over channels, y over rows.
    struct StatisticsArguments {
      int rows; int channels; double count; double epsilon; double momentum; const void* x; const float* sums;
      const float* weight; const float* bias; float* mean; float* inverse; float* scale; float* shift; float* running_mean;
      float* running_var;
    };

    // From sums (rows, 2, channels) of GradientSumsArguments: the factors of GradientArguments and the gradients of weight and bias.
    struct NormGradientArguments {
      int rows; int channels; double count; const float* sums; const float* weight; const float* inverse; float* a; float* b;
      float* c; float* of_weight; float* of_bias;
    };
)

// As many threads as kernels of Pixels, and as those with rows, have in a block.
inline constexpr int kThreads = 256;

}  // namespace cellcam::model::fused::gpu

#pragma once

namespace cellcam::model::fused::gpu {

// Both C++ and, as the text of `name`, the source that is compiled for the GPU at run time.
#define CELLCAM_SOURCE(name, ...) \
  __VA_ARGS__                     \
  inline constexpr char name[] = #__VA_ARGS__;

// The one argument of each kernel of kernels.inl. Images are (images, pixels, channels), channels in vectors of 8, of one type throughout;
// everything per channel is float32. `weights` are those of a squeeze-and-excitation, (images, channels); null without one, and all images
// may then count as one of many pixels. `slope` as in rows.h.
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

    // y = act((x * scale + shift) * weights + residual); scale and residual may be null. `positive`, unless null, gets a byte for 8 values:
    // the bits of those above 0.
    struct ScaleArguments {
      Pixels size; const void* x; const void* residual; const float* scale; const float* shift; const float* weights; float slope;
      void* y; unsigned char* positive;
    };

    // partial (images, slices, 2, channels): sums of g and of g * (x - mean). Without a residual, y = act(x * scale + shift): g is dy where
    // y is positive, else slope * dy.
    struct GradientSumsArguments {
      Pixels size; const void* dy; const void* x; const float* scale; const float* shift; const float* mean; float slope; float* partial;
    };

    // The same behind a residual: g is dy, and `again` unless that is null, where `positive` has a bit, else slope times that. It is written.
    struct AddedGradientSumsArguments {
      Pixels size; const void* dy; const void* again; const void* x; const unsigned char* positive; const float* mean; float slope;
      float* partial; void* g;
    };

    // dx = g * a + (x - mean) * b + c.
    struct GradientArguments {
      Pixels size; const void* dy; const void* x; const float* scale; const float* shift; const float* mean; float slope;
      const float* a; const float* b; const float* c; void* dx;
    };

    // dx = g * a * weights + (x - mean) * b + c + a * of_means / pixels, of_means as NormGradientArguments has it; null like weights.
    struct AddedGradientArguments {
      Pixels size; const void* g; const void* x; const float* mean; const float* a; const float* b; const float* c; const float* weights;
      const float* of_means; void* dx;
    };

    // sums (images, 2, channels) of partial (images, slices, 2, channels). A thread a number.
    struct ImageSumsArguments {
      int images; int slices; int channels; const float* partial; float* sums;
    };

    // From sums (rows, 2, channels) of MomentsArguments, over `count` pixels: the batch norm's statistics, y = x * scale + shift, and the
    // running statistics moved. Threads: x over channels, y over rows. Where means is not null rows are images: it gets the mean of each
    // one's y, and offset the mean of its x less the batch's, both (rows, channels).
    struct StatisticsArguments {
      int rows; int channels; double count; double epsilon; double momentum; const void* x; const float* sums;
      const float* weight; const float* bias; float* mean; float* inverse; float* scale; float* shift; float* running_mean;
      float* running_var; long long* batches_tracked; float* offset; float* means;
    };

    // From sums (images, 2, channels) of AddedGradientSumsArguments: gradients of what the weights are the sigmoid of. A thread a number.
    struct ExcitationGradientArguments {
      int images; int channels; const float* sums; const float* weight; const float* bias; const float* inverse; const float* weights;
      float* of_logits;
    };

    // From sums (rows, 2, channels) of g: the factors a, b and c above and the gradients of weight and bias.
    // Where weights is not null rows are images, of_means (rows, channels) is the gradient of their means and offset as above.
    struct NormGradientArguments {
      int rows; int channels; double count; const float* sums; const float* weight; const float* inverse; const float* weights;
      const float* of_means; const float* offset; float* a; float* b; float* c; float* of_weight; float* of_bias;
    };

    // The largest of 3 x 3 pixels, every other one, of images (images, height, width, channels) with a border that loses. `which` (like y)
    // says where it was, row by row from 0 to 8. A thread 8 values of y; for the gradient, of dx.
    struct MaxPoolArguments {
      int images; int height; int width; int channels; int y_height; int y_width; const void* x; void* y; unsigned char* which;
    };
    struct MaxPoolGradientArguments {
      int images; int height; int width; int channels; int y_height; int y_width; const void* dy; const unsigned char* which; void* dx;
    };

    // The median of side x side bytes around each of images (images, height, width, channels), whose border is repeated. A thread a byte.
    struct WindowMedianArguments {
      int images; int height; int width; int channels; int side; const unsigned char* x; unsigned char* y;
    };
)

// How many threads at most there are in a block of kernels of Pixels, and of those with rows.
inline constexpr int kThreads = 256, kRowThreads = 1024;

}  // namespace cellcam::model::fused::gpu

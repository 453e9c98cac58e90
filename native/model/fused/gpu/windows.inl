// Pooling and the median of a window on a GPU; included as kernels.inl is, and behind it.
CELLCAM_KERNELS(kWindowKernels,

    // Where 8 values lie in an array of (images, height, width, channels).
    struct Place {
      int image;
      int row;
      int column;
      int channel;
      bool inside;

      __device__ Place(int images, int height, int width, int channels) {
        long long at = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
        const int vectors = channels / 8;
        channel = 8 * static_cast<int>(at % vectors);
        at /= vectors;
        column = static_cast<int>(at % width);
        at /= width;
        row = static_cast<int>(at % height);
        image = static_cast<int>(at / height);
        inside = image < images;
      }
    };

    __device__ long long offset(const Place& p, int height, int width, int channels, int row, int column) {
      return ((p.image * static_cast<long long>(height) + row) * width + column) * channels + p.channel;
    }

    CELLCAM_KERNEL max_pool(MaxPoolArguments a) {
      const Place p(a.images, a.y_height, a.y_width, a.channels);
      if (!p.inside) return;
      Vector most = {};
      int where[8];
      for (int i = 0; i < 8; ++i) where[i] = -1;
      for (int k = 0; k < 9; ++k) {
        const int row = 2 * p.row - 1 + k / 3;
        const int column = 2 * p.column - 1 + k % 3;
        if (row < 0 || row >= a.height || column < 0 || column >= a.width) continue;
        const Vector value = unpacked(fetch(static_cast<const T*>(a.x) + offset(p, a.height, a.width, a.channels, row, column)));
        for (int i = 0; i < 8; ++i) {
          if (where[i] >= 0 && value.v[i] <= most.v[i]) continue;
          if (where[i] >= 0 && most.v[i] != most.v[i]) continue;
          most.v[i] = value.v[i];
          where[i] = k;
        }
      }
      const long long to = offset(p, a.y_height, a.y_width, a.channels, p.row, p.column);
      store(static_cast<T*>(a.y) + to, most);
      for (int i = 0; i < 8; ++i) a.which[to + i] = static_cast<unsigned char>(where[i]);
    }

    CELLCAM_KERNEL max_pool_gradient(MaxPoolGradientArguments a) {
      const Place p(a.images, a.height, a.width, a.channels);
      if (!p.inside) return;
      Vector sum = {};
      for (int row = p.row / 2; row <= (p.row + 1) / 2 && row < a.y_height; ++row) {
        for (int column = p.column / 2; column <= (p.column + 1) / 2 && column < a.y_width; ++column) {
          const int k = 3 * (p.row - 2 * row + 1) + p.column - 2 * column + 1;
          const long long from = offset(p, a.y_height, a.y_width, a.channels, row, column);
          const Vector dy = unpacked(fetch(static_cast<const T*>(a.dy) + from));
          for (int i = 0; i < 8; ++i) sum.v[i] += a.which[from + i] == k ? dy.v[i] : 0;
        }
      }
      store(static_cast<T*>(a.dx) + offset(p, a.height, a.width, a.channels, p.row, p.column), sum);
    }

    // The largest value that more than half of the window reaches, found bit by bit.
    CELLCAM_KERNEL window_median(WindowMedianArguments a) {
      const long long at = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
      const int line = a.width * a.channels;
      const long long rows = at / line;
      if (rows >= static_cast<long long>(a.images) * a.height) return;
      const int channel = static_cast<int>(at % a.channels);
      const int column = static_cast<int>(at % line) / a.channels;
      const int row = static_cast<int>(rows % a.height);
      const unsigned char* const image = a.x + (rows - row) * line + channel;
      const int margin = a.side / 2;
      int found = 0;
      for (int bit = 128; bit > 0; bit /= 2) {
        const int higher = found + bit;
        int reach = 0;
        for (int y = row - margin; y <= row + margin; ++y) {
          const unsigned char* const from = image + static_cast<long long>(y < 0 ? 0 : y < a.height ? y : a.height - 1) * line;
          for (int x = column - margin; x <= column + margin; ++x) {
            reach += from[(x < 0 ? 0 : x < a.width ? x : a.width - 1) * a.channels] >= higher ? 1 : 0;
          }
        }
        if (reach > a.side * a.side / 2) found = higher;
      }
      a.y[at] = static_cast<unsigned char>(found);
    }
)

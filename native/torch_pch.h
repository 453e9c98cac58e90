// Precompiled: LibTorch's own headers are nine tenths of every compile.
#pragma once
#include <torch/torch.h>

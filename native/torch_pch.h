// Precompiled: LibTorch's own headers are nine tenths of every compile. Not torch/torch.h: what nobody uses of it takes every file 2 s.
#pragma once
#include <ATen/Functions.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/batchnorm.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/modules/conv.h>

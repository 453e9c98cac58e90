#pragma once
#include "model/precision.h"
#include "model/puzzle_cam.h"

namespace cellcam::model {

// The memory format in which a model like this one needs the least time on its device: for training steps, or for predictions. Measured
// on a model of its own the first time that a backbone, device and precision come up, a matter of seconds, and known to the process from
// then on.
at::MemoryFormat fastest_memory_format(const PuzzleCam& model, Precision precision, bool training);

// On CUDA, where which format is faster depends on backbone and device, gives a model that has none yet its fastest one, and returns it. On
// the CPU the backbones' own choice stands. CELLCAM_MEASURE_FORMAT=0 turns it off.
std::shared_ptr<PuzzleCam> in_fastest_format(std::shared_ptr<PuzzleCam> model, Precision precision, bool training);

}  // namespace cellcam::model

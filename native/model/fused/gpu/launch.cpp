#include "model/fused/gpu/launch.h"

#include <ATen/DynamicLibrary.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#ifdef CELLCAM_CUDA_GRAPHS
#include <c10/cuda/CUDAStream.h>
#endif

#include <map>
#include <memory>
#include <mutex>

#include "error.h"
#include "model/fused/gpu/kernels.h"

namespace cellcam::model::fused::gpu {

namespace {

#define CELLCAM_KERNELS(name, ...) inline constexpr char name[] = #__VA_ARGS__;
#include "model/fused/gpu/kernels.inl"
#include "model/fused/gpu/windows.inl"
#undef CELLCAM_KERNELS

constexpr char kVector[] = "#define CELLCAM_KERNEL extern \"C\" __global__ void\nstruct Vector { float v[8]; };\n";

constexpr char kFloat32[] = R"(
typedef float T;
struct Packed { float4 low, high; };
__device__ Packed fetch(const T* p) { return {reinterpret_cast<const float4*>(p)[0], reinterpret_cast<const float4*>(p)[1]}; }
__device__ Vector unpacked(const Packed& x) { return {{x.low.x, x.low.y, x.low.z, x.low.w, x.high.x, x.high.y, x.high.z, x.high.w}}; }
__device__ void store(T* p, const Vector& x) {
  reinterpret_cast<float4*>(p)[0] = make_float4(x.v[0], x.v[1], x.v[2], x.v[3]);
  reinterpret_cast<float4*>(p)[1] = make_float4(x.v[4], x.v[5], x.v[6], x.v[7]);
}
)";

// Two values of 16 bits lie in each word: unpack and pack are the types' own.
constexpr char kSixteenBits[] = R"(
struct Packed { uint4 words; };
__device__ Packed fetch(const T* p) { return {*reinterpret_cast<const uint4*>(p)}; }
__device__ Vector unpacked(const Packed& x) {
  const unsigned w[4] = {x.words.x, x.words.y, x.words.z, x.words.w};
  Vector out;
  for (int i = 0; i < 4; ++i) unpack(w[i], out.v[2 * i], out.v[2 * i + 1]);
  return out;
}
__device__ void store(T* p, const Vector& x) {
  *reinterpret_cast<uint4*>(p) = make_uint4(pack(x.v[0], x.v[1]), pack(x.v[2], x.v[3]), pack(x.v[4], x.v[5]), pack(x.v[6], x.v[7]));
}
)";

constexpr char kFloat16[] = R"(
typedef unsigned short T;
__device__ void unpack(unsigned word, float& low, float& high) {
  asm("{ .reg .f16 a, b; mov.b32 {a, b}, %2; cvt.f32.f16 %0, a; cvt.f32.f16 %1, b; }" : "=f"(low), "=f"(high) : "r"(word));
}
__device__ unsigned pack(float low, float high) {
  unsigned word;
  asm("{ .reg .f16 a, b; cvt.rn.f16.f32 a, %1; cvt.rn.f16.f32 b, %2; mov.b32 %0, {a, b}; }" : "=r"(word) : "f"(low), "f"(high));
  return word;
}
)";

constexpr char kBfloat16[] = R"(
typedef unsigned short T;
__device__ void unpack(unsigned word, float& low, float& high) {
  low = __uint_as_float(word << 16);
  high = __uint_as_float(word & 0xffff0000u);
}
__device__ unsigned rounded(float value) {
  const unsigned bits = __float_as_uint(value);
  return value == value ? (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16 : 0x7fc0u;
}
__device__ unsigned pack(float low, float high) { return rounded(low) | rounded(high) << 16; }
)";

template <typename F>
void find(at::DynamicLibrary& library, const char* name, F& function) {
  function = reinterpret_cast<F>(library.sym(name));
}

// CUDA's run-time compiler, and below its driver, by their documented C interfaces, so that building needs no headers of CUDA's. LibTorch's own
// library for them depends on both, and looking a symbol up goes through what a library depends on.
class Compiler {
 public:
  using Program = struct ProgramTag*;

  static Compiler& get() {
    static Compiler compiler;
    return compiler;
  }

  std::vector<char> compile(const std::string& source, const std::string& architecture) {
    Program program = nullptr;
    check(create_(&program, source.c_str(), "cellcam.cu", 0, nullptr, nullptr), "nvrtcCreateProgram");
    const std::unique_ptr<Program, int (*)(Program*)> destroy(&program, destroy_);
    const char* options[] = {architecture.c_str(), "--std=c++17"};
    if (compile_(program, 2, options) != 0) {
      std::size_t size = 0;
      check(log_size_(program, &size), "nvrtcGetProgramLogSize");
      std::string log(size, '\0');
      check(log_(program, log.data()), "nvrtcGetProgramLog");
      throw Error("ERR_NATIVE", "the kernels do not compile with " + architecture + ": " + log);
    }
    std::size_t size = 0;
    check(code_size_(program, &size), "nvrtcGetCUBINSize");
    std::vector<char> code(size);
    check(code_(program, code.data()), "nvrtcGetCUBIN");
    return code;
  }

 private:
  Compiler() : nvrtc_("libcaffe2_nvrtc.so", "libnvrtc.so.13") {
    find(nvrtc_, "nvrtcCreateProgram", create_);
    find(nvrtc_, "nvrtcDestroyProgram", destroy_);
    find(nvrtc_, "nvrtcCompileProgram", compile_);
    find(nvrtc_, "nvrtcGetProgramLogSize", log_size_);
    find(nvrtc_, "nvrtcGetProgramLog", log_);
    find(nvrtc_, "nvrtcGetCUBINSize", code_size_);
    find(nvrtc_, "nvrtcGetCUBIN", code_);
  }

  static void check(int result, const char* what) {
    if (result != 0) throw Error("ERR_NATIVE", std::string(what) + " failed with " + std::to_string(result));
  }

  at::DynamicLibrary nvrtc_;
  int (*create_)(Program*, const char*, const char*, int, const char* const*, const char* const*);
  int (*destroy_)(Program*);
  int (*compile_)(Program, int, const char* const*);
  int (*log_size_)(Program, std::size_t*);
  int (*log_)(Program, char*);
  int (*code_size_)(Program, std::size_t*);
  int (*code_)(Program, char*);
};

class Driver {
 public:
  using Module = struct ModuleTag*;
  using Function = struct FunctionTag*;
  // CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, …_COMPUTE_CAPABILITY_MAJOR and …_MINOR.
  enum Attribute { kProcessors = 16, kMajor = 75, kMinor = 76 };

  Driver() : library_("libcaffe2_nvrtc.so", "libcuda.so.1") {
    find(library_, "cuDeviceGetAttribute", attribute_);
    find(library_, "cuModuleLoadData", load_);
    find(library_, "cuModuleGetFunction", function_);
    find(library_, "cuLaunchKernel", launch_);
    find(library_, "cuOccupancyMaxActiveBlocksPerMultiprocessor", occupancy_);
    find(library_, "cuGetErrorString", error_);
  }

  int attribute(Attribute which, int device) const {
    int value = 0;
    check(attribute_(&value, which, device), "cuDeviceGetAttribute");
    return value;
  }
  Module load(const std::vector<char>& code) const {
    Module module = nullptr;
    check(load_(&module, code.data()), "cuModuleLoadData");
    return module;
  }
  Function function(Module module, const char* name) const {
    Function function = nullptr;
    check(function_(&function, module, name), name);
    return function;
  }
  int blocks_a_processor(Function f, int threads) const {
    int blocks = 0;
    check(occupancy_(&blocks, f, threads, 0), "cuOccupancyMaxActiveBlocksPerMultiprocessor");
    return blocks;
  }
  void launch(Function f, const Grid& g, void* stream, void* argument, const char* name) const {
    void* arguments[] = {argument};
    check(launch_(f, g.blocks.x, g.blocks.y, g.blocks.z, g.threads.x, g.threads.y, g.threads.z, 0, stream, arguments, nullptr), name);
  }

 private:
  void check(int result, const char* what) const {
    if (result == 0) return;
    const char* text = nullptr;
    error_(result, &text);
    throw Error("ERR_NATIVE", std::string(what) + " failed: " + (text != nullptr ? text : std::to_string(result)));
  }

  at::DynamicLibrary library_;
  int (*attribute_)(int*, int, int);
  int (*load_)(Module*, const void*);
  int (*function_)(Function*, Module, const char*);
  int (*launch_)(Function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**, void**);
  int (*occupancy_)(int*, Function, int, std::size_t);
  int (*error_)(int, const char**);
};

// cudaStream_t of a stream; older LibTorch tells it only to those with CUDA's headers.
template <typename Stream>
void* native_handle(const Stream& stream) {
  if constexpr (requires { stream.native_handle(); }) {
    return stream.native_handle();
  } else {
#ifdef CELLCAM_CUDA_GRAPHS
    return c10::cuda::CUDAStream(stream).stream();
#else
    throw Error("ERR_NATIVE", "this LibTorch does not tell its streams without CUDA's headers");
#endif
  }
}

class CudaLauncher : public Launcher {
 public:
  explicit CudaLauncher(at::Device device)
      : device_(device), processors_(driver_.attribute(Driver::kProcessors, device.index())),
        major_(driver_.attribute(Driver::kMajor, device.index())), minor_(driver_.attribute(Driver::kMinor, device.index())) {
    const c10::DeviceGuard guard(device_);  // modules belong to the current device
    native_handle(stream());
    module(at::kHalf);  // or whoever makes it learns that there is no compiler
  }

  void launch(const char* kernel, at::ScalarType type, const Grid& grid, void* argument) override {
    const c10::DeviceGuard guard(device_);
    driver_.launch(function(kernel, type), grid, native_handle(stream()), argument, kernel);
  }

  std::int64_t blocks_at_once(const char* kernel, at::ScalarType type, const Extent& threads) override {
    const c10::DeviceGuard guard(device_);
    return std::int64_t{processors_} * driver_.blocks_a_processor(function(kernel, type), static_cast<int>(threads.x * threads.y));
  }

 private:
  c10::Stream stream() const { return c10::impl::VirtualGuardImpl(device_.type()).getStream(device_); }

  // Forward and backward pass come from different threads.
  Driver::Function function(const char* kernel, at::ScalarType type) {
    const std::lock_guard lock(mutex_);
    Driver::Function& f = functions_[{type, kernel}];
    if (f == nullptr) f = driver_.function(module(type), kernel);
    return f;
  }

  // Compiling takes seconds, and most processes want one type.
  Driver::Module module(at::ScalarType type) {
    Driver::Module& m = modules_[type];
    if (m == nullptr) m = driver_.load(compile(kernel_source(type), major_, minor_));
    return m;
  }

  Driver driver_;
  at::Device device_;
  int processors_, major_, minor_;
  std::mutex mutex_;
  std::map<at::ScalarType, Driver::Module> modules_;  // for as long as the process lives
  std::map<std::pair<at::ScalarType, std::string>, Driver::Function> functions_;
};

std::unique_ptr<Launcher> make_launcher(at::Device device) {
  try {
    return std::make_unique<CudaLauncher>(device);
  } catch (const std::exception& e) {
    TORCH_WARN("cellcam goes on without kernels of its own on ", device.str(), ": ", e.what());
    return nullptr;
  }
}

Launcher*& launcher_on_cpu() {
  static Launcher* launcher = nullptr;
  return launcher;
}

}  // namespace

Launcher* launcher(at::Device device) {
  if (!device.is_cuda()) return launcher_on_cpu();
  static std::mutex mutex;
  static std::map<at::DeviceIndex, std::unique_ptr<Launcher>> launchers;
  const std::lock_guard lock(mutex);
  auto found = launchers.find(device.index());
  if (found == launchers.end()) found = launchers.emplace(device.index(), make_launcher(device)).first;
  return found->second.get();
}

Launcher* use_launcher_on_cpu(Launcher* launcher) { return std::exchange(launcher_on_cpu(), launcher); }

std::string kernel_source(at::ScalarType type) {
  const std::string own = type == at::kFloat ? std::string(kFloat32) : (type == at::kHalf ? kFloat16 : kBfloat16) + std::string(kSixteenBits);
  return kVector + own + kArguments + kNormKernels + kWindowKernels;
}

std::vector<char> compile(const std::string& source, int major, int minor) {
  return Compiler::get().compile(source, "--gpu-architecture=sm_" + std::to_string(major) + std::to_string(minor));
}

}  // namespace cellcam::model::fused::gpu

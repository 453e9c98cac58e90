# The second way to the addon that CMakeLists.txt builds, for machines without CMake: node scripts/build.mjs --builder node-gyp
{
  'variables': {
    'libtorch%': '<!(node scripts/libtorch.mjs fetch)',
  },
  'target_defaults': {
    'include_dirs': ['native'],
    'defines': ['NDEBUG'],
    'cflags_cc!': ['-fno-exceptions', '-fno-rtti', '-std=gnu++1y', '-std=gnu++17', '-std=gnu++20'],
    'cflags_cc': [
      '-std=c++20', '-fexceptions', '-frtti',
      # System headers, so that their warnings stay out of the output.
      '-isystem', '<(libtorch)/include', '-isystem', '<(libtorch)/include/torch/csrc/api/include',
    ],
    'xcode_settings': {
      'CLANG_CXX_LANGUAGE_STANDARD': 'c++20',
      'GCC_ENABLE_CPP_EXCEPTIONS': 'YES',
      'GCC_ENABLE_CPP_RTTI': 'YES',
      'MACOSX_DEPLOYMENT_TARGET': '14.0',
      'OTHER_CPLUSPLUSFLAGS': [
        '-isystem', '<(libtorch)/include', '-isystem', '<(libtorch)/include/torch/csrc/api/include',
      ],
    },
    'conditions': [
      ['OS=="linux"', {
        'cflags_cc': ['<!@(node scripts/libtorch.mjs openmp)'],
      }],
      ['OS=="win"', {
        'include_dirs': ['<(libtorch)/include', '<(libtorch)/include/torch/csrc/api/include'],
      }],
    ],
    'configurations': {
      'Release': {
        'msvs_settings': {
          'VCCLCompilerTool': {
            'AdditionalOptions': ['/std:c++20', '/Zc:__cplusplus'],
            'ExceptionHandling': 1,
            'RuntimeTypeInfo': 'true',
            # The runtime's DLL: LibTorch's DLLs share their heap with the addon.
            'RuntimeLibrary': 2,
          },
        },
      },
    },
  },
  'targets': [
    {
      'target_name': 'cellcam_core',
      'type': 'static_library',
      'sources': ['<!@(node scripts/libtorch.mjs core)'],
      # CMake's precompiled header is part of every core source, so it is here too.
      # As in CMakeLists.txt: vectors in most loops need them.
      'cflags_cc': ['-include', '<(module_root_dir)/native/torch_pch.h', '-fno-math-errno', '-fno-trapping-math'],
      'xcode_settings': {'OTHER_CPLUSPLUSFLAGS': ['-include', '<(module_root_dir)/native/torch_pch.h']},
      'msvs_settings': {'VCCLCompilerTool': {'ForcedIncludeFiles': ['<(module_root_dir)/native/torch_pch.h']}},
    },
    {
      'target_name': 'cellcam',
      'dependencies': ['cellcam_core'],
      'sources': ['<!@(node scripts/libtorch.mjs addon)'],
      'defines': ['NAPI_VERSION=8', 'NAPI_CPP_EXCEPTIONS', 'NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS'],
      'include_dirs': ['<!(node -p "require(\'node-addon-api\').include_dir")'],
      'cflags_cc': ['-fvisibility=hidden'],
      'library_dirs': ['<(libtorch)/lib'],
      'libraries': ['<!@(node scripts/libtorch.mjs libraries)'],
      'conditions': [
        ['OS=="linux"', {
          # --no-as-needed: nothing refers to libtorch_cuda by symbol, so the linker would drop it.
          'ldflags': ['-Wl,--no-as-needed', '-Wl,--allow-shlib-undefined', '-Wl,-rpath,<(libtorch)/lib'],
        }],
        ['OS=="mac"', {
          'xcode_settings': {
            'GCC_SYMBOLS_PRIVATE_EXTERN': 'YES',
            'OTHER_LDFLAGS': ['-Wl,-rpath,<(libtorch)/lib'],
          },
        }],
      ],
    },
  ],
}

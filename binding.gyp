# The second way to the addon that CMakeLists.txt builds, for machines without CMake: node scripts/build.mjs --builder node-gyp
{
  'variables': {
    'libtorch%': '<!(node scripts/libtorch.mjs fetch)',
  },
  'targets': [
    {
      'target_name': 'cellcam',
      'sources': ['<!@(node scripts/libtorch.mjs sources)'],
      'defines': ['NAPI_VERSION=8', 'NAPI_CPP_EXCEPTIONS', 'NDEBUG'],
      'include_dirs': [
        'native',
        '<!(node -p "require(\'node-addon-api\').include_dir")',
      ],
      'library_dirs': ['<(libtorch)/lib'],
      'libraries': ['<!@(node scripts/libtorch.mjs libraries)'],
      'cflags_cc!': ['-fno-exceptions', '-fno-rtti', '-std=gnu++17', '-std=gnu++20', '-std=gnu++1y'],
      'cflags_cc': [
        '-std=c++20', '-fexceptions', '-frtti', '-fvisibility=hidden', '-fvisibility-inlines-hidden',
        # System headers, so that their warnings stay out of the output.
        '-isystem', '<(libtorch)/include', '-isystem', '<(libtorch)/include/torch/csrc/api/include',
      ],
      'conditions': [
        ['OS=="linux"', {
          # --no-as-needed: nothing refers to libtorch_cuda by symbol, so the linker would drop it.
          'ldflags': ['-Wl,--no-as-needed', '-Wl,--allow-shlib-undefined', '-Wl,-rpath,<(libtorch)/lib'],
        }],
        ['OS=="mac"', {
          'xcode_settings': {
            'CLANG_CXX_LANGUAGE_STANDARD': 'c++20',
            'GCC_ENABLE_CPP_EXCEPTIONS': 'YES',
            'GCC_ENABLE_CPP_RTTI': 'YES',
            'GCC_SYMBOLS_PRIVATE_EXTERN': 'YES',
            'MACOSX_DEPLOYMENT_TARGET': '14.0',
            'OTHER_CPLUSPLUSFLAGS': [
              '-isystem', '<(libtorch)/include', '-isystem', '<(libtorch)/include/torch/csrc/api/include',
            ],
            'OTHER_LDFLAGS': ['-Wl,-rpath,<(libtorch)/lib'],
          },
        }],
        ['OS=="win"', {
          'include_dirs': ['<(libtorch)/include', '<(libtorch)/include/torch/csrc/api/include'],
          'configurations': {
            'Release': {
              'msvs_settings': {
                'VCCLCompilerTool': {
                  'AdditionalOptions': ['/std:c++20', '/Zc:__cplusplus', '/EHsc'],
                  'ExceptionHandling': 1,
                  'RuntimeTypeInfo': 'true',
                  # The runtime's DLL: LibTorch's DLLs share their heap with the addon.
                  'RuntimeLibrary': 2,
                },
              },
            },
          },
        }],
      ],
    },
  ],
}

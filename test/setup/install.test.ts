import { chmodSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { ROOT, Sandbox, libtorchFiles, runNode, writeFiles, type Outcome } from './fake_libtorch';
import { copyPackage } from './package_copy';

interface BuildRecord {
  error?: string;
  when: string;
  attempts: { source: string; outcome: string }[];
}

// The stand-ins for Python and CMake are shell scripts.
const onPosix = process.platform === 'win32' ? describe.skip : describe;

onPosix('scripts/install.mjs', () => {
  let box: Sandbox;
  let copy: string;
  beforeEach(() => {
    box = new Sandbox();
    copy = copyPackage(box);
  });
  afterEach(() => box.remove());

  const install = async (env: Record<string, string>): Promise<Outcome> =>
    await runNode([path.join(copy, 'scripts', 'install.mjs')], env, copy);
  const record = (): BuildRecord =>
    JSON.parse(readFileSync(path.join(copy, 'build', 'cellcam-build.json'), 'utf8')) as BuildRecord;

  /** A PATH with node and these programs only, each a shell script. */
  const onlyPrograms = (programs: Record<string, string>): string => {
    const bin = box.path('bin');
    mkdirSync(bin, { recursive: true });
    symlinkSync(process.execPath, path.join(bin, 'node'));
    for (const [name, script] of Object.entries(programs)) {
      writeFileSync(path.join(bin, name), `#!/bin/sh\n${script}\n`);
      chmodSync(path.join(bin, name), 0o755);
    }
    return bin;
  };

  test('without any LibTorch it warns, records what was tried and exits with 0', async () => {
    const ran = await install(box.env());
    expect(ran.code).toBe(0);
    expect(ran.stderr).toContain('WARNING: installed without its native addon');
    expect(ran.stderr).toContain('npm rebuild cellcam');
    expect(record()).toMatchObject({ error: 'no LibTorch could be found or fetched' });
    const sources = record().attempts.map(({ source }) => source);
    expect(sources).toEqual(['LIBTORCH', "Python's torch", 'cache', 'official archive (cpu)', 'wheel (cpu)']);
  });

  test('a wrong LIBTORCH or CELLCAM_TORCH is recorded, and it exits with 0', async () => {
    expect((await install(box.env({ LIBTORCH: '/nowhere' }))).code).toBe(0);
    expect(record().error).toContain("for LIBTORCH but received '/nowhere'");
    expect((await install(box.env({ CELLCAM_TORCH: 'gpu' }))).code).toBe(0);
    expect(record().error).toContain("for CELLCAM_TORCH but received 'gpu'");
  });

  test.each([
    [
      'CMake that fails',
      {
        cmake:
          'echo "cmake version 3.25.1"; case "$1" in --version) ;; *) echo "fatal error: no compiler" >&2; exit 1;; esac',
      },
    ],
    ['neither CMake nor a Python for node-gyp', {}],
    ['a CMake that is too old and no Python for node-gyp', { cmake: 'echo "cmake version 3.10.2"' }],
  ])('%s: it warns, records the reason and exits with 0', async (_what, programs) => {
    const LIBTORCH = writeFiles(box.path('lt'), libtorchFiles());
    const ran = await install(box.env({ LIBTORCH, PATH: onlyPrograms(programs) }));
    expect(ran.code).toBe(0);
    expect(ran.stderr).toContain('WARNING');
    expect(record().error).toMatch(/failed \(1\):\n/);
    expect(record().attempts).toHaveLength(1);
  });

  test('CELLCAM_SKIP_BUILD=1 builds nothing and says so in the record', async () => {
    const ran = await install(box.env({ CELLCAM_SKIP_BUILD: '1' }));
    expect(ran.code).toBe(0);
    expect(ran.stdout).toContain('CELLCAM_SKIP_BUILD is set');
    expect(record().error).toContain('CELLCAM_SKIP_BUILD');
    expect(box.cached()).toEqual([]);
  });

  describe('with a build that is there', () => {
    const recorder = `import { sourcesHash, writeRecord } from './build_record.mjs';
      import { locateLibtorch } from './libtorch.mjs';
      const platform = process.platform + '-' + process.arch;
      writeRecord({ libtorch: locateLibtorch(), builder: 'cmake-js', platform, sources: sourcesHash() });`;
    const pretendBuilt = async (env: Record<string, string>): Promise<void> => {
      writeFiles(copy, { 'build/Release/cellcam.node': 'addon', 'scripts/record_test.mjs': recorder });
      const ran = await runNode([path.join(copy, 'scripts', 'record_test.mjs')], env, copy);
      expect(ran).toMatchObject({ code: 0, stderr: '' });
    };
    let env: Record<string, string>;
    beforeEach(async () => {
      const LIBTORCH = writeFiles(box.path('lt'), libtorchFiles());
      env = box.env({ LIBTORCH, PATH: onlyPrograms({}) });
      await pretendBuilt(env);
    });

    test('of these sources and this LibTorch, nothing is built', async () => {
      const ran = await install(env);
      expect(ran.stdout).toContain('up to date');
      expect(ran.stderr).toBe('');
    });

    test('of other sources, it is built again', async () => {
      writeFiles(copy, { 'native/error.h': '// changed\n' });
      expect((await install(env)).stderr).toContain('WARNING');
    });

    test('against another LibTorch, it is built again', async () => {
      const LIBTORCH = writeFiles(box.path('other'), libtorchFiles());
      expect((await install({ ...env, LIBTORCH })).stderr).toContain('WARNING');
    });
  });
});

describe('scripts/write_esm_entry.mjs', () => {
  let box: Sandbox;
  let copy: string;
  beforeEach(() => {
    box = new Sandbox();
    copy = copyPackage(box);
  });
  afterEach(() => box.remove());
  const write = async (files: Record<string, string>): Promise<Outcome> => {
    writeFiles(copy, files);
    return await runNode([path.join(copy, 'scripts', 'write_esm_entry.mjs')], box.env(), copy);
  };

  test('a name that Node cannot see in the text of the CommonJS build is exported like the others', async () => {
    const hidden = "const names = { ['hid' + 'den']: 1 }; Object.assign(exports, names); exports.shown = 2;";
    expect((await write({ 'dist/index.js': hidden })).code).toBe(0);
    writeFiles(copy, { 'use.mjs': "import { hidden, shown } from './dist/index.mjs'; console.log(hidden, shown);" });
    expect((await runNode([path.join(copy, 'use.mjs')], box.env(), copy)).stdout).toBe('1 2\n');
  });

  test('a command without its first line is refused', async () => {
    const ran = await write({ 'dist/cli/main.js': "'use strict';" });
    expect(ran.code).toBe(1);
    expect(ran.stderr).toContain('#!/usr/bin/env node');
  });

  test('without dist/index.js it says what is missing', async () => {
    const scripts = box.path('bare', 'scripts', 'write_esm_entry.mjs');
    writeFiles(box.path('bare'), {
      'scripts/write_esm_entry.mjs': readFileSync(path.join(ROOT, 'scripts', 'write_esm_entry.mjs'), 'utf8'),
    });
    const ran = await runNode([scripts], box.env());
    expect(ran.code).toBe(1);
    expect(ran.stderr).toContain(`Expected ${box.path('bare', 'dist', 'index.js')}`);
    expect(existsSync(box.path('bare', 'dist'))).toBe(false);
  });
});

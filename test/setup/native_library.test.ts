import { existsSync } from 'node:fs';
import path from 'node:path';
import { buildInfo, loadNativeLibrary } from '../../dist/native_library';
import { ROOT, Sandbox, runNode, writeFiles } from './fake_libtorch';
import { copyPackage } from './package_copy';

const ADDON = path.join(ROOT, 'build', 'Release', 'cellcam.node');

describe('loadNativeLibrary without an addon', () => {
  let box: Sandbox;
  let copy: string;
  beforeEach(() => {
    box = new Sandbox();
    copy = copyPackage(box);
  });
  afterEach(() => box.remove());

  const failure = async (): Promise<{ name: string; code: string; message: string }> => {
    const script = `try { require('./dist/native_library').loadNativeLibrary(); }
      catch ({ name, code, message }) { console.log(JSON.stringify({ name, code, message })); }`;
    return JSON.parse((await runNode(['-e', script], box.env(), copy)).stdout) as {
      name: string;
      code: string;
      message: string;
    };
  };

  test('that was never built: says so and what to run', async () => {
    const error = await failure();
    expect(error).toMatchObject({ name: 'CellcamError', code: 'ERR_NATIVE_MISSING' });
    expect(error.message).toContain(`there is no ${path.join(copy, 'build', 'Release', 'cellcam.node')}`);
    expect(error.message).toContain('install script did not run');
    expect(error.message).toContain('npm rebuild cellcam');
    expect(error.message).toContain('LIBTORCH=<folder>');
  });

  test('whose build failed: lists what was tried', async () => {
    const attempts = [
      { source: 'LIBTORCH', outcome: 'not set' },
      { source: 'wheel (cpu)', outcome: 'ERROR: No matching distribution found' },
    ];
    const record = { when: '2026-01-02T03:04:05Z', error: 'no LibTorch could be found or fetched', attempts };
    writeFiles(copy, { 'build/cellcam-build.json': JSON.stringify(record) });
    const { message } = await failure();
    expect(message).toContain('2026-01-02T03:04:05Z ended with: no LibTorch could be found or fetched');
    expect(message).toContain('\n  LIBTORCH: not set\n  wheel (cpu): ERROR: No matching distribution found\n');
  });

  test('that cannot be loaded: gives the reason of the system', async () => {
    const libtorch = { dir: box.path('gone'), version: '2.13.0', variant: 'cpu', source: 'LIBTORCH' };
    writeFiles(copy, {
      'build/Release/cellcam.node': 'not a library',
      'build/cellcam-build.json': JSON.stringify({ when: 'now', libtorch }),
    });
    const error = await failure();
    expect(error.code).toBe('ERR_NATIVE_MISSING');
    expect(error.message).toMatch(/cannot be used: .*cellcam\.node/);
    expect(error.message).toContain(`built against LibTorch in ${box.path('gone')}, which is no longer there`);
  });

  test('a damaged record does not hide the error', async () => {
    writeFiles(copy, { 'build/cellcam-build.json': '{"when": ' });
    expect((await failure()).message).toContain('cellcam-build.json cannot be read');
  });
});

(existsSync(ADDON) ? describe : describe.skip)('loadNativeLibrary (skipped where the addon is not built)', () => {
  test('loads the addon once', () => {
    const addon = loadNativeLibrary();
    expect(typeof addon).toBe('object');
    expect(loadNativeLibrary()).toBe(addon);
  });

  test('buildInfo says what it was built from', () => {
    const build = buildInfo();
    expect(build?.libtorch?.version).toMatch(/^2\.\d+\.\d+/);
    expect(existsSync(path.join(build?.libtorch?.dir ?? '', 'include'))).toBe(true);
    expect(build?.error).toBeUndefined();
  });
});

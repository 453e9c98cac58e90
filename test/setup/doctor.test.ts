import { existsSync } from 'node:fs';
import path from 'node:path';
import { doctor, formatDoctor, type DoctorReport } from '../../dist/cli/doctor';
import { ROOT, Sandbox, runNode } from './fake_libtorch';
import { copyPackage } from './package_copy';

const HAS_ADDON = existsSync(path.join(ROOT, 'build', 'Release', 'cellcam.node'));

describe('doctor', () => {
  test('an installation without addon is not ok, and says what to do', async () => {
    const box = new Sandbox();
    try {
      const script = "require('./dist/cli/doctor').doctor().then((report) => console.log(JSON.stringify(report)))";
      const report = JSON.parse((await runNode(['-e', script], box.env(), copyPackage(box))).stdout) as DoctorReport;
      expect(report.ok).toBe(false);
      expect(report.addon).toEqual({ loaded: false });
      expect(report.problems).toEqual([expect.stringContaining('npm rebuild cellcam')]);
      expect(report.cache).toBe(box.cache);
    } finally {
      box.remove();
    }
  });

  test('tells what is here, as plain JSON', async () => {
    const report = await doctor();
    expect(JSON.parse(JSON.stringify(report))).toEqual(report);
    expect(report).toMatchObject({ node: process.version, h5wasm: '0.10.3' });
    expect(report.sharp).toMatch(/^0\.35\./);
    expect(report.cellcam).toMatch(/^\d+\.\d+\.\d+$/);
    expect(report.platform).toContain(`${process.platform} ${process.arch}`);
    expect(report.cpu.cores).toBeGreaterThan(0);
    expect(report.memory.total).toBeGreaterThan(report.memory.free);
    expect(report.libuvThreads).toBeGreaterThan(0);
    expect(report.ok).toBe(report.problems.length === 0);
    expect(report.addon.loaded).toBe(HAS_ADDON);
    if (HAS_ADDON) expect(['fp32', 'bf16', 'int16']).toContain(report.addon.cpuPrecision);
  });

  (process.platform === 'linux' && process.arch === 'x64' ? test : test.skip)(
    'knows the CPU features that matter',
    async () => {
      const { features } = (await doctor()).cpu;
      expect(Object.keys(features)).toEqual(['avx2', 'avx512f', 'avx512_vnni', 'avx512_bf16', 'amx_bf16']);
    },
  );
});

describe('formatDoctor', () => {
  const report: DoctorReport = {
    ok: true,
    problems: [],
    notes: [],
    cellcam: '1.2.3',
    node: 'v20.0.0',
    platform: 'linux x64 6.1',
    cpu: { model: 'A CPU', cores: 8, features: { avx2: true, amx_bf16: false } },
    memory: { total: 16 * 1024 ** 3, free: 8 * 1024 ** 3, limit: 4 * 1024 ** 3 },
    build: {
      when: 'now',
      builder: 'cmake-js',
      libtorch: { dir: '/lt', version: '2.13.0', variant: 'cu130', source: 'cache' },
    },
    addon: {
      loaded: true,
      torch: '2.13.0+cu130',
      cuda: true,
      devices: ['cpu', 'cuda:0 H100'],
      cpuPrecision: 'bf16',
      threads: 8,
    },
    libuvThreads: 4,
    h5wasm: '0.10.3',
    sharp: '0.35.5',
    cache: '/cache',
  };

  test('aligns the values and ends with the verdict', () => {
    const lines = formatDoctor(report).split('\n');
    expect(lines).toContain('CPU features     avx2, no amx_bf16');
    expect(lines).toContain('memory           16.0 GiB, 8.0 GiB free, limited to 4.0 GiB');
    expect(lines).toContain('LibTorch         2.13.0 (cu130) in /lt, from cache');
    expect(lines).toContain('devices          cpu, cuda:0 H100');
    expect(lines).toContain('CPU precision    bf16, where auto is asked for');
    expect(lines.at(-1)).toBe('All is well.');
  });

  test('shows every problem and counts them', () => {
    const text = formatDoctor({ ...report, ok: false, problems: ['one', 'two'], notes: ['a note'] });
    expect(text).toContain('Problem: one\n\nProblem: two\n');
    expect(text).toContain('Note: a note');
    expect(text.split('\n').at(-1)).toBe('2 problems found.');
  });
});

import { execFile } from 'node:child_process';
import { readdirSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import * as built from '../../dist/index';
import { ROOT, Sandbox, runNode, writeFiles } from './fake_libtorch';

const run = promisify(execFile);

const CREATE = `PuzzleCam.create({ backbone: 'seresnext50_32x4d' }).catch(({ code }) => console.log(code));`;

/** Compiled by users' compilers in both module kinds. */
const TYPES = `
const create: (o: { backbone: 'seresnext50_32x4d' }) => Promise<object> = PuzzleCam.create;
const image: NdArray<Float32Array> = { data: new Float32Array(4), shape: [2, 2] };
// @ts-expect-error: a code is one of the stable codes
const code: ErrorCode = 'ERR_NOTHING';
export const used = [create, image, code, CellcamError.name.length];
`;

describe('the packed package, installed into another project', () => {
  const box = new Sandbox();
  const project = box.path('project');
  const env = { ...process.env, CELLCAM_SKIP_BUILD: '1', CELLCAM_CACHE: box.cache };
  const npm = async (args: string[], cwd: string): Promise<unknown> => await run('npm', args, { cwd, env });

  beforeAll(async () => {
    writeFiles(project, { 'package.json': '{ "name": "project", "private": true }' });
    await npm(['pack', '--ignore-scripts', '--pack-destination', project], ROOT);
    const tarball = readdirSync(project).find((name) => name.endsWith('.tgz')) ?? 'no tarball';
    await npm(['install', '--prefer-offline', '--no-audit', '--no-fund', `./${tarball}`], project);
  }, 600000);
  afterAll(() => box.remove());

  const inProject = async (file: string, text: string): Promise<string> => {
    writeFiles(project, { [file]: text });
    const { stdout, stderr } = await runNode([file], { PATH: process.env['PATH'] ?? '' }, project);
    expect(stderr).toBe('');
    return stdout.trim();
  };
  const names = Object.keys(built).sort();

  test('require gives every export', async () => {
    const text = "console.log(JSON.stringify(Object.keys(require('cellcam')).sort()))";
    expect(JSON.parse(await inProject('names.cjs', text))).toEqual(names);
  });

  test('import gives every export by name, the same objects as require', async () => {
    const text = `import * as cellcam from 'cellcam'; import { createRequire } from 'node:module';
      const required = createRequire(import.meta.url)('cellcam');
      const same = Object.keys(cellcam).every((name) => cellcam[name] === required[name]);
      console.log(JSON.stringify([same, Object.keys(cellcam).sort()]));`;
    const [same, imported] = JSON.parse(await inProject('names.mjs', text)) as [boolean, string[]];
    expect(same).toBe(true);
    expect(imported.filter((name) => name !== '__esModule')).toEqual(names);
  });

  test('the first use without an addon rejects with ERR_NATIVE_MISSING, in both module kinds', async () => {
    expect(await inProject('use.cjs', `const { PuzzleCam } = require('cellcam'); ${CREATE}`)).toBe(
      'ERR_NATIVE_MISSING',
    );
    expect(await inProject('use.mjs', `import { PuzzleCam } from 'cellcam'; ${CREATE}`)).toBe('ERR_NATIVE_MISSING');
  });

  test('types resolve in both module kinds', async () => {
    const compilerOptions = {
      module: 'node16',
      target: 'es2022',
      lib: ['es2023', 'esnext.disposable'],
      strict: true,
      noEmit: true,
      types: ['node'],
      typeRoots: [path.join(ROOT, 'node_modules', '@types')],
    };
    writeFiles(project, {
      'types.mts': `import { CellcamError, PuzzleCam, type ErrorCode, type NdArray } from 'cellcam';${TYPES}`,
      'types.cts': `import { CellcamError, PuzzleCam, type ErrorCode, type NdArray } from 'cellcam';${TYPES}`,
      'tsconfig.json': JSON.stringify({ compilerOptions, files: ['types.mts', 'types.cts'] }),
    });
    const tsc = path.join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc');
    expect(await runNode([tsc, '-p', 'tsconfig.json'], {}, project)).toMatchObject({ code: 0, stdout: '' });
  });

  test('the tarball holds no tests, no build and no data', () => {
    const inside = readdirSync(path.join(project, 'node_modules', 'cellcam'));
    expect(inside).toEqual(expect.arrayContaining(['dist', 'native', 'scripts', 'CMakeLists.txt', 'binding.gyp']));
    expect(inside).not.toContain('test');
    expect(readdirSync(path.join(project, 'node_modules', 'cellcam', 'native'))).not.toContain('tests');
  });
});

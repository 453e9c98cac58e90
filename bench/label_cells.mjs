// Cells from the two probability maps of a field of 512², beside scikit-image and SciPy on the same maps, both by one thread; then as many
// fields at once as there are cores, as `cellcam segment` works.
// Usage: node bench/label_cells.mjs NUCLEI_PNG CELL_PNG SCALE [python] (0.0625)
import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import os from 'node:os';
import { performance } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';
import sharp from 'sharp';

const { labelCells } = createRequire(import.meta.url)('../dist/index.js');
const [nucleiPath, cellPath, scale = '0.0625', python = 'python3'] = process.argv.slice(2);
if (!cellPath) throw new Error('Expected the PNGs of two probability maps');
const RUNS = 30;

async function readMap(path) {
  const { data, info } = await sharp(path).raw().toBuffer({ resolveWithObject: true });
  return { data: new Uint8Array(data), shape: [info.height, info.width, info.channels] };
}

const [nuclei, cells] = [await readMap(nucleiPath), await readMap(cellPath)];
const call = () => labelCells(nuclei, cells, { scale: Number(scale) });
async function least(work) {
  let best = Infinity;
  for (let i = 0; i < RUNS; i++) {
    const start = performance.now();
    await work();
    best = Math.min(best, performance.now() - start);
  }
  return best;
}

const cores = os.availableParallelism();
const one = await least(call);
const many = (await least(() => Promise.all(Array.from({ length: 2 * cores }, call)))) / (2 * cores);
const peer = fileURLToPath(new URL('peers/label_cells.py', import.meta.url));
const { status, stdout, stderr } = spawnSync(python, [peer, nucleiPath, cellPath, Number(scale), RUNS], {
  encoding: 'utf8',
  env: { ...process.env, OMP_NUM_THREADS: '1' },
});
if (status !== 0) throw new Error(`${python} failed: ${stderr}`);
const { ms, cells: count } = JSON.parse(stdout);
console.log(
  `${count} cells: ${one.toFixed(1)} ms, scikit-image ${ms.toFixed(1)} ms: ratio ${(ms / one).toFixed(1)}; ` +
    `on ${cores} cores ${many.toFixed(1)} ms a field: ratio ${(ms / many).toFixed(1)}`,
);

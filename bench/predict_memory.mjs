// Peak memory of `cellcam predict` on 20 and on 200 drawn fields: it must not grow with their number.
// Usage: node bench/predict_memory.mjs [size] [backbone]   fields of `size` (512) pixels, a network with random weights (resnet18)
import { spawnSync } from 'node:child_process';
import { mkdtempSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const require = createRequire(import.meta.url);
const { PuzzleCam } = require('../dist/index.js');
const { generateFields } = require('../dist/demo/fields.js');
const { DEMO_SPEC } = require('../dist/demo/plan.js');
const [size = '512', backbone = 'resnet18'] = process.argv.slice(2);
const scratch = mkdtempSync(path.join(os.tmpdir(), 'cellcam-bench-'));
const cli = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));

/** Peak resident memory of a run in MB, as the kernel counts it. */
function peak(images, output) {
  const args = [
    'predict',
    '--images-folder',
    images,
    '--weights-files',
    path.join(scratch, 'weights.safetensors'),
    '--backbone',
    backbone,
  ];
  const rest = ['--output', output, '--home', scratch, '--image-size', size, '--spec', path.join(scratch, 'spec.json')];
  const script = `require(process.argv[1]); process.on('exit', () => console.error('PEAK', process.resourceUsage().maxRSS))`;
  const { status, stderr } = spawnSync(process.execPath, ['-e', script, '--', cli, ...args, ...rest], {
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(stderr);
  return Number(/PEAK (\d+)/.exec(stderr)[1]) / 1024;
}

try {
  const set = await generateFields({ folder: path.join(scratch, 'set'), fields: 20, size: Number(size), seed: 1 });
  writeFileSync(path.join(scratch, 'spec.json'), JSON.stringify(DEMO_SPEC));
  const model = await PuzzleCam.forSpec(DEMO_SPEC, { backbone, device: 'cpu' });
  await model.saveWeights(path.join(scratch, 'weights.safetensors'));
  model.dispose();
  const many = path.join(scratch, 'many');
  mkdirSync(many);
  for (const name of readdirSync(set.imagesFolder)) {
    for (let i = 0; i < 10; i++) symlinkSync(path.join(set.imagesFolder, name), path.join(many, `${i}-${name}`));
  }
  const few = peak(set.imagesFolder, path.join(scratch, 'few-out'));
  const all = peak(many, path.join(scratch, 'many-out'));
  console.log(`20 fields: ${few.toFixed(0)} MB, 200 fields: ${all.toFixed(0)} MB: ratio ${(all / few).toFixed(2)}`);
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

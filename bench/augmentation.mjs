// The augmentation of a training batch (36 crops of 384 from 512 x 512), beside the same pipeline in OpenCV and numpy and beside the training step.
// Usage: node bench/augmentation.mjs [python] [backbone or none]   python needs OpenCV and numpy; without one there is no first ratio.
import { execFileSync, spawnSync } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const [python = 'python3', backbone = 'seresnext50_32x4d'] = process.argv.slice(2);

function parsed(program, args) {
  const { status, stdout, stderr } = spawnSync(program, args, { cwd: ROOT, encoding: 'utf8' });
  if (status === 0) return JSON.parse(stdout);
  console.error(`no figures of ${program}: ${(stderr ?? '').trim().split('\n').at(-1)}`);
  return undefined;
}

execFileSync(process.execPath, ['scripts/build.mjs', '--bench'], { cwd: ROOT, stdio: ['ignore', 'ignore', 'inherit'] });
const bench = path.join(ROOT, 'build', 'cellcam_bench');
const peer = path.join(ROOT, 'bench', 'peers', 'augmentation.py');
const own = parsed(bench, ['augmentation', 'cpu', 'none', '36', '384', '3', 'operations']);
for (const noise of ['numpy', 'opencv']) {
  const other = parsed(python, [peer, '--images', '1500', '--noise', noise]);
  if (!other) break;
  const ratio = own.images_per_second / other.images_per_second;
  console.log(
    `${own.images_per_second.toFixed(0)} images/s, OpenCV in 2 processes with ${noise} noise ${other.images_per_second.toFixed(0)}: ratio ${ratio.toFixed(2)}`,
  );
}
console.log('ms an image, all threads:', own.ms_per_image);
if (backbone !== 'none') {
  const { step_ms, augmentation_ms, share_of_step } = parsed(bench, [
    'augmentation',
    'cpu',
    backbone,
    '12',
    '384',
    '2',
  ]); // 12 images: 36 want some 14 GB
  console.log(
    `${augmentation_ms.toFixed(0)} ms of a step of ${step_ms.toFixed(0)} ms of ${backbone}: ${(100 * share_of_step).toFixed(1)} %`,
  );
}

// Dumping a folder of fields, beside one Python process with PIL, scikit-image and h5py.
// Usage: node bench/dump.mjs FOLDER [python] [copies]   every field of FOLDER is dumped `copies` times (10), by links of other names.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, mkdirSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { performance } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const [folder, python = 'python3', copies = '10'] = process.argv.slice(2);
if (!folder) throw new Error('Expected a folder of <id>_red.png, _green.png, _blue.png, _yellow.png');
const scratch = mkdtempSync(path.join(os.tmpdir(), 'cellcam-bench-'));
const images = path.join(scratch, 'images');
mkdirSync(images);
const files = readdirSync(folder).filter((name) => /_(red|green|blue|yellow)\.png$/.test(name));
for (let i = 0; i < Number(copies); i++) {
  for (const name of files) symlinkSync(path.resolve(folder, name), path.join(images, `${i}-${name}`));
}

function timed(program, args) {
  const start = performance.now();
  const { status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${program} failed: ${stderr}`);
  return { seconds: (performance.now() - start) / 1e3, stdout };
}

try {
  const count = (files.length / 4) * Number(copies);
  const cli = path.join(ROOT, 'dist', 'cli', 'main.js');
  const own = timed(process.execPath, [
    cli,
    'dump',
    '--images-folder',
    images,
    '--hdf5-output',
    path.join(scratch, 'own.hdf5'),
  ]);
  const peer = JSON.parse(
    timed(python, [path.join(ROOT, 'bench', 'peers', 'dump.py'), images, path.join(scratch, 'peer.hdf5')]).stdout,
  );
  console.log(
    `${count} fields: ${own.seconds.toFixed(1)} s with start-up, Python ${peer.seconds.toFixed(1)} s: ratio ${(peer.seconds / own.seconds).toFixed(1)}`,
  );
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

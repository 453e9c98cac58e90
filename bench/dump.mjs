// Dumping a folder of fields, beside one Python process with PIL, scikit-image and h5py.
// Usage: node bench/dump.mjs [--images FOLDER] [--python PYTHON] [--copies 10] [--json]   every field of FOLDER (drawn ones of 2048²) is dumped
// `copies` times, by links of other names. Start-up counts.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, mkdirSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { performance } from 'node:perf_hooks';
import { parseArgs } from 'node:util';
import { ROOT, peerScript, show, start } from './report.mjs';

const { generateFields } = createRequire(import.meta.url)('../dist/demo/fields.js');
const { values: o } = parseArgs({
  options: {
    images: { type: 'string' },
    python: { type: 'string' },
    copies: { type: 'string', default: '10' },
    json: { type: 'boolean', default: false },
  },
});
start(o.json);
const scratch = mkdtempSync(path.join(os.tmpdir(), 'cellcam-bench-'));
const images = path.join(scratch, 'images');
mkdirSync(images);
const folder =
  o.images ??
  (await generateFields({ folder: path.join(scratch, 'set'), fields: 6, size: 2048, seed: 1 })).imagesFolder;
const files = readdirSync(folder).filter((name) => /_(red|green|blue|yellow)\.png$/.test(name));
for (let i = 0; i < Number(o.copies); i++) {
  for (const name of files) symlinkSync(path.resolve(folder, name), path.join(images, `${i}-${name}`));
}

function timed(program, args) {
  const begin = performance.now();
  const { status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${program} failed: ${stderr}`);
  return { seconds: (performance.now() - begin) / 1e3, stdout };
}

try {
  const count = (files.length / 4) * Number(o.copies);
  const cli = path.join(ROOT, 'dist', 'cli', 'main.js');
  const own = timed(process.execPath, [
    cli,
    'dump',
    '--images-folder',
    images,
    '--hdf5-output',
    path.join(scratch, 'own.hdf5'),
  ]);
  const result = (seconds) => ({
    what: 'dump',
    unit: 'fields',
    fields: count,
    per_s: count / seconds,
    step_s: seconds / count,
  });
  show([{ ...result(own.seconds), note: `${count} fields` }]);
  if (o.python) {
    const { stdout } = timed(o.python, [peerScript('dump'), images, path.join(scratch, 'peer.hdf5')]);
    const { seconds } = JSON.parse(stdout);
    const ratio = seconds / own.seconds;
    show([{ ...result(seconds), peer: 'PIL + scikit-image + h5py', ratio, lowest: ratio, highest: ratio }]);
  }
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

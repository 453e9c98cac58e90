// Weights from Python's timm models to cellcam and back, where a Python with torch and timm is at hand ($CELLCAM_PYTHON or python3).
import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PuzzleCam, readWeights } from '../../dist';
import { scratchFolder } from '../data/scratch';

const PYTHON = process.env['CELLCAM_PYTHON'] ?? 'python3';
const SCRIPT = join(__dirname, 'models.py');
const atHand = spawnSync(PYTHON, ['-c', 'import torch, timm']).status === 0;
const BACKBONES = ['resnet18', 'seresnext50_32x4d', 'gluon_seresnext101_32x4d', 'cspresnext50', 'regnety_064'];

const scratch = scratchFolder();

function floats(name: string): Float32Array {
  return new Float32Array(Uint8Array.from(readFileSync(scratch.path(name))).buffer);
}

function distance(got: Float32Array, want: Float32Array): number {
  let [difference, size] = [0, 0];
  for (let i = 0; i < want.length; i++) {
    difference += (got[i]! - want[i]!) ** 2;
    size += want[i]! ** 2;
  }
  return Math.sqrt(difference / size);
}

const title = atHand
  ? 'weights to and from Python'
  : `weights to and from Python (skipped: ${PYTHON} has no torch and timm)`;
(atHand ? describe : describe.skip)(title, () => {
  test.each(BACKBONES)('%s', async (backbone) => {
    execFileSync(PYTHON, [SCRIPT, 'make', scratch.path(), backbone]);
    using model = await PuzzleCam.create({ backbone, device: 'cpu', pretrained: scratch.path('zip.pt') });
    const { logits, maps } = await model.forward({ data: floats('images.f32'), shape: [2, 4, 128, 128] });
    expect(distance(logits.data, floats('logits.f32'))).toBeLessThan(1e-5);
    expect(distance(maps.data, floats('maps.f32'))).toBeLessThan(1e-5);
    const names = Object.keys(await readWeights(scratch.path('zip.pt')));
    for (const other of ['legacy.pt', 'parallel.pt'])
      expect(Object.keys(await readWeights(scratch.path(other)))).toEqual(names);
    await model.saveWeights(scratch.path('back.pt'));
    expect(execFileSync(PYTHON, [SCRIPT, 'check', scratch.path(), backbone]).toString()).toBe('equal\n');
  });
});

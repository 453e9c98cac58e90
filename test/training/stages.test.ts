import { join, sep } from 'node:path';
import { HPA } from '../../dist';
import { modelName, snapshotFiles, trainedFold } from '../../dist/training/stages';

const DEFAULTS = {
  mtype: 'siamese',
  backbone: 'seresnext50_32x4d',
  imageSize: 512,
  cropSize: 384,
  folds: 4,
  precision: 'auto',
  spec: HPA,
};

test("the original's name of a model", () => {
  expect(modelName(DEFAULTS)).toBe('siamese_seresnext50_32x4d_512_384_RGBY_fp16_CV4_v3.0');
  expect(modelName({ ...DEFAULTS, cropSize: 128, folds: 2, precision: 'fp32' })).toBe(
    'siamese_seresnext50_32x4d_512_128_RGBY_fp32_CV2_v3.0',
  );
});

test('a weights file in the folder that training made tells its model', () => {
  const name = modelName({ ...DEFAULTS, cropSize: 128 });
  expect(trainedFold(snapshotFiles(join(sep, 'data', 'fold7'), name, 2, 'stage1').best)?.model).toBe(name);
});

test('a weights file elsewhere tells nothing', () => {
  expect(trainedFold(join(sep, 'downloads', 'model_best.safetensors'))?.model).toBeUndefined();
  expect(trainedFold(join(sep, 'models', 'fold1', 'model_best.safetensors'))?.model).toBeUndefined();
});

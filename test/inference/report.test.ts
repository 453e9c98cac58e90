import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium, type Page } from 'playwright-core';
import { predictCells, PuzzleCam, writeReport, type ReportOptions } from '../../dist';
import { reportHtml } from '../../dist/report/html';
import { cellcam } from '../cli/run_cellcam';
import { makeSmallSet, SIZE, type SmallSet } from '../training/small_set';

const BROWSERS = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
const browser = process.env['CHROMIUM'] ?? BROWSERS.find((path) => existsSync(path));
const describeBrowser = browser === undefined ? describe.skip : describe;

let small: SmallSet;
let options: ReportOptions;

/** A model's folder as training leaves it: two folds' histories and the split. */
function writeModel(folder: string): void {
  for (const fold of [1, 2]) {
    const snapshots = join(folder, `fold${fold}`, 'stage1', 'snapshots');
    mkdirSync(snapshots, { recursive: true });
    for (const part of ['train', 'valid']) {
      const rows = [1, 2, 3].map((epoch) =>
        [epoch, 0.001, 1 / epoch, 0.5, 0.5, 0.1, 0.2 * epoch, 0.3 * epoch].join(','),
      );
      writeFileSync(join(snapshots, `${part}.csv`), `epoch,lr,loss,full,tiled,l1,f1,mAP\n${rows.join('\n')}\n`);
    }
  }
  const rows = small.set.fields.map(({ id }, i) => `${id},default,${1 + (i % 2)}`);
  writeFileSync(join(folder, 'folds_stage1.csv'), `ID,ext,fold\n${rows.join('\n')}\n`);
}

beforeAll(async () => {
  small = await makeSmallSet(mkdtempSync(join(tmpdir(), 'cellcam-report-')), 5);
  const { spec, imagesFolder, masksFolder } = small.set;
  using model = await PuzzleCam.forSpec(spec, { backbone: 'resnet18', device: 'cpu', seed: 4 });
  const weights = join(small.folder, 'weights.safetensors');
  await model.saveWeights(weights);
  const common = {
    imagesFolder,
    weightsFiles: [weights],
    backbone: 'resnet18',
    imageSize: SIZE,
    device: 'cpu',
    spec,
  } as const;
  const predictions = join(small.folder, 'predicted');
  await predictCells({ ...common, home: small.folder, output: predictions, masks: masksFolder, precision: 'fp32' });
  const trained = join(small.folder, 'model');
  writeModel(trained);
  const evaluation = join(small.folder, 'scores.json');
  const classes = spec.classes.length;
  const curve = { confidence: [0.9, 0.5], precision: [1, 0.5], recall: [0.5, 0.5] };
  writeFileSync(
    evaluation,
    JSON.stringify({
      cells: {
        mAP: 0.5,
        ap: spec.classes.map((_, c) => (c === 0 ? null : 0.5)),
        instances: spec.classes.map((_, c) => c),
        curves: spec.classes.map(() => curve),
        confusion: spec.classes.map((_, c) => Array.from({ length: classes + 1 }, (__, k) => (c === k ? 3 : 0))),
      },
      imageLevel: { images: 5, f1: 0.25, mAP: 0.75, ap: spec.classes.map(() => 0.75) },
    }),
  );
  const labelsFile = join(small.folder, 'labels.csv');
  options = {
    ...common,
    output: join(small.folder, 'report.html'),
    predictions,
    model: trained,
    evaluation,
    labelsFile,
  };
});
afterAll(() => rmSync(small.folder, { recursive: true }));

test('one file that names no other', async () => {
  const result = await writeReport(options);
  expect(result).toMatchObject({ sections: ['training', 'folds', 'scores', 'gallery'], fields: 5 });
  const html = readFileSync(result.path, 'utf8');
  const outside = html.replace(/<script>[^]*?<\/script>/g, '').matchAll(/(?:src|href)="([^"]*)"/g);
  expect([...outside].map(([, address]) => address)).toEqual(['data:,']);
  expect(statSync(result.path).size).toBeLessThan(4e6);
});

test('what is not given is left out, and something must be given', async () => {
  const output = join(small.folder, 'part.html');
  expect(await writeReport({ output, model: options.model! })).toMatchObject({ sections: ['training'], fields: 0 });
  await expect(writeReport({ output })).rejects.toThrow(/model, predictions or evaluation/);
  await expect(writeReport({ output, predictions: options.predictions! })).rejects.toThrow(/imagesFolder/);
  await expect(writeReport({ output, model: join(small.folder, 'none') })).rejects.toMatchObject({
    code: 'ERR_FILE_NOT_FOUND',
  });
  await expect(writeReport({ output, evaluation: join(small.folder, 'labels.csv') })).rejects.toThrow(/labels.csv/);
});

test('text that looks like markup stays text', () => {
  const html = reportHtml({
    title: '</title><script>alert(1)</script>',
    subtitle: '',
    classes: ['</script><b>'],
    channels: [],
    size: 64,
    training: [],
    fields: [],
    lists: { confident: [], doubtful: [], disagreements: [] },
  });
  expect(html).not.toContain('<script>alert');
  expect(html).not.toContain('</script><b>');
});

describeBrowser(`in Chromium${browser === undefined ? ' (skipped: none is installed; set CHROMIUM)' : ''}`, () => {
  /** Opens the report from disk; whatever is written to the console as an error, or asked of a server, is kept. */
  async function withPage(use: (page: Page, wrong: string[]) => Promise<void>): Promise<void> {
    await writeReport(options);
    const running = await chromium.launch({ executablePath: browser!, args: ['--no-sandbox'] });
    try {
      const page = await running.newPage();
      const wrong: string[] = [];
      page.on('console', (message) => message.type() === 'error' && wrong.push(message.text()));
      page.on('pageerror', (error) => wrong.push(String(error)));
      page.on('request', (request) => /^(file|data|blob):/.test(request.url()) || wrong.push(request.url()));
      await page.goto(`file://${options.output}`);
      await page.waitForSelector('body[data-ready="true"]');
      await page.waitForSelector('canvas[data-painted]');
      await use(page, wrong);
      expect(wrong).toEqual([]);
    } finally {
      await running.close();
    }
  }
  const painted = (page: Page): Promise<string | null> => page.getAttribute('.stage canvas', 'data-painted');
  const picture = (page: Page): Promise<string> =>
    page.evaluate<string>("document.querySelector('.stage canvas').toDataURL()");

  test('sections are there, and clicks change what is shown', async () => {
    await withPage(async (page) => {
      expect(await page.locator('nav a').allTextContents()).toEqual(['Scores', 'Fields and cells', 'Cells to look at', 'Training', 'Folds']); // prettier-ignore
      expect(await page.locator('#scores tbody tr').first().textContent()).toContain('–');
      const before = await picture(page);
      await page.getByRole('button', { name: 'red' }).click();
      await page.waitForSelector('canvas[data-painted^="0 0"]');
      expect(await picture(page)).not.toBe(before);
      await page.getByLabel('Activation map').selectOption('2');
      await page.waitForSelector('canvas[data-painted$=" 2"]');
      await page.getByRole('button', { name: 'Next' }).click();
      await page.waitForSelector('canvas[data-painted^="1 "]');
      expect(await painted(page)).toMatch(/^1 0111 2$/);
      await page.getByRole('button', { name: 'outlines' }).click();
      expect(await page.locator('.stage svg').isVisible()).toBe(false);
      const first = page.locator('#lists button').first();
      await first.click();
      expect(await page.locator('#gallery h3').textContent()).toMatch(/^Cell \d+ of field_/);
      await page.getByRole('button', { name: 'F1' }).click();
      expect(await page.getByRole('button', { name: 'F1' }).getAttribute('aria-pressed')).toBe('true');
    });
  });

  test('by keyboard: a cell is reached, chosen and told', async () => {
    await withPage(async (page) => {
      await page.getByRole('button', { name: 'Save as PNG' }).nth(2).focus();
      await page.keyboard.press('Tab');
      const cell = page.locator('.stage path').first();
      expect(await page.evaluate("document.activeElement === document.querySelector('.stage path')")).toBe(true);
      expect(await cell.getAttribute('aria-label')).toMatch(/^cell \d+: /);
      expect(await page.locator('#gallery .bars .track').count()).toBe(small.set.spec.classes.length);
      await page.keyboard.press('Enter');
      expect(await cell.getAttribute('aria-pressed')).toBe('true');
    });
  });

  test('every figure is saved as a PNG', async () => {
    await withPage(async (page) => {
      const buttons = page.getByRole('button', { name: 'Save as PNG' });
      const names: string[] = [];
      for (let i = 0; i < (await buttons.count()); i++) {
        const [download] = await Promise.all([page.waitForEvent('download'), buttons.nth(i).click()]);
        names.push(download.suggestedFilename());
        expect(
          readFileSync(await download.path())
            .subarray(1, 4)
            .toString(),
        ).toBe('PNG');
      }
      expect(names.map((name) => name.replace(/field_\d+/, 'field'))).toEqual(['precision-recall.png', 'confusion.png', 'field.png', 'training.png', 'folds.png']); // prettier-ignore
    });
  });
});

test('on the command line', async () => {
  const output = join(small.folder, 'cli.html');
  const { code, stdout } = await cellcam(['report', '--output', output, '--model', options.model!]);
  expect([code, stdout]).toEqual([0, `${output}: training; 0 fields\n`]);
});

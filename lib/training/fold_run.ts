import { existsSync, mkdirSync } from 'node:fs';
import { stringify } from 'csv-stringify/sync';
import { writeDurably } from '../data/durable';
import { selectRows, type LabelTable } from '../data/labels';
import { ImageLoader, type ImageIndex } from '../data/loader';
import { CellcamError } from '../errors';
import type { EpochTally, NativeAugmentation, StepProgress } from '../native';
import { abortReason, type NdArray } from '../options';
import type { PuzzleCam } from '../model/puzzle_cam';
import { writeTrainingCurves, type EpochMetrics, type EpochRecord } from '../report/curves';
import { epochMetrics, writeHistory } from './history';
import { sampler, type SamplerName } from './sample_weights';
import type { ModelType } from './plan';
import { createSchedule, type Schedule, type ScheduleName, type ScheduleState } from './schedule';
import { readState, writeState } from './snapshots';
import type { SnapshotFiles } from './stages';
import { Trainer } from './trainer';

/** What decides a run's outcome; a state of other settings is refused. */
export interface FoldSettings {
  fold: number;
  stage: string;
  backbone: string;
  mtype: ModelType;
  dropout: number;
  seed: number;
  lr: number;
  schedule: ScheduleName;
  epochs: number;
  batch: number;
  size: number;
  crop: number;
  gamma: number;
  augmentation: NativeAugmentation;
  sampler: SamplerName;
  precision: string;
  images: [train: number, valid: number];
}

export interface FoldInput {
  settings: FoldSettings;
  model: PuzzleCam;
  train: LabelTable;
  valid: LabelTable;
  /** Training images first, then validation images. */
  index: ImageIndex;
  files: SnapshotFiles;
  workers: number;
  signal?: AbortSignal;
  onStep: (part: 'train' | 'valid', epoch: number, p: StepProgress) => void;
  onEpoch: (record: EpochRecord, best: boolean) => void;
}

interface Notes {
  settings: FoldSettings;
  /** Epochs done. */
  epoch: number;
  history: EpochRecord[];
  schedule: ScheduleState;
  best: { epoch: number; loss: number } | null;
}

const GOLDEN = 0x9e3779b97f4a7c15n;

/** One fold of one stage, from its beginning or from where its state file left it, to its last epoch. */
export class FoldRun {
  readonly #in: FoldInput;
  readonly #trainer: Trainer;
  readonly #sampler: (seed: bigint) => Int32Array;
  #schedule: Schedule;
  #epoch = 0;
  #history: EpochRecord[] = [];
  #best: Notes['best'] = null;
  #interrupted: EpochTally | null = null;

  constructor(input: FoldInput) {
    const { settings, model, index } = input;
    this.#in = input;
    this.#trainer = new Trainer({
      model,
      spec: index.spec,
      loss: settings.mtype === 'regular' ? { beta: 0, gamma: 0 } : { gamma: settings.gamma },
      precision: settings.precision as 'auto',
      augmentation: settings.augmentation,
      seed: BigInt(settings.seed) * 64n + BigInt(settings.fold),
    });
    this.#schedule = createSchedule(settings.schedule, settings);
    this.#sampler = sampler(settings.sampler, input.train);
  }

  /** Runs to the end. On abort the state is saved before the signal's reason is thrown. */
  async run(): Promise<void> {
    const { settings, files } = this.#in;
    mkdirSync(files.folder, { recursive: true });
    await this.#resume();
    if (this.#epoch >= settings.epochs) return;
    const loader = await ImageLoader.open(this.#in.index, { batch: settings.batch, workers: this.#in.workers });
    try {
      while (this.#epoch < settings.epochs) await this.#runEpoch(loader, this.#epoch + 1);
    } finally {
      await loader.close();
    }
  }

  dispose(): void {
    this.#trainer.dispose();
  }

  async #resume(): Promise<void> {
    const { files, settings } = this.#in;
    if (!existsSync(files.last)) return;
    const { state, tally, notes } = await readState(files.last);
    const known = notes as unknown as Notes;
    checkSettings(files.last, known.settings, settings);
    await this.#trainer.setState(state);
    this.#schedule = createSchedule(settings.schedule, settings, known.schedule);
    this.#epoch = known.epoch;
    this.#history = known.history;
    this.#best = known.best;
    this.#interrupted = tally;
  }

  async #runEpoch(loader: ImageLoader, epoch: number): Promise<void> {
    const { train, valid, settings, signal } = this.#in;
    const order = this.#draw(epoch);
    const targets = selectRows(train, order).labels;
    const rates = this.#schedule.rates(epoch, Math.ceil(order.length / settings.batch));
    const trained = await this.#pass(loader, 'train', epoch, order, targets, rates);
    if (!trained.complete) await this.#interrupt(trained);
    const rows = Int32Array.from({ length: valid.ids.length }, (_, i) => train.ids.length + i);
    const validated = await this.#pass(loader, 'valid', epoch, rows, valid.labels);
    // Validation is short: an interrupted one is done again, from the end of the training pass.
    if (!validated.complete) await this.#interrupt(trained);
    await this.#finish(epoch, rates.at(-1) ?? settings.lr, epochMetrics(trained, targets), validated);
    if (signal?.aborted) throw abortReason(signal);
  }

  #draw(epoch: number): Int32Array {
    const { seed, fold } = this.#in.settings;
    const stream = BigInt.asUintN(64, (BigInt(seed) * 64n + BigInt(fold)) * GOLDEN + BigInt(epoch));
    return this.#sampler(stream);
  }

  async #pass(
    loader: ImageLoader,
    part: 'train' | 'valid',
    epoch: number,
    order: Int32Array,
    targets: NdArray<Uint8Array>,
    learningRate?: Float64Array,
  ): Promise<EpochTally> {
    const { settings, signal, onStep } = this.#in;
    const start = part === 'train' ? this.#interrupted : null;
    if (start?.complete) return start;
    const feed = loader.begin(order, start?.nextBatch ?? 0);
    try {
      return await this.#trainer.runFed(
        part === 'train',
        { feed, targets, batch: settings.batch, size: settings.size, firstBatch: start?.nextBatch ?? 0, start },
        { epoch, learningRate, crop: settings.crop, signal, onProgress: (p) => onStep(part, epoch, p) },
      );
    } finally {
      feed.close();
    }
  }

  /** Saves the middle of an epoch and gives up. */
  async #interrupt(tally: EpochTally): Promise<never> {
    await this.#save(tally);
    throw abortReason(this.#in.signal!);
  }

  async #finish(epoch: number, lr: number, train: EpochMetrics, validated: EpochTally): Promise<void> {
    const valid = epochMetrics(validated, this.#in.valid.labels);
    if (!Number.isFinite(valid.loss)) {
      throw new CellcamError(
        'ERR_TRAINING',
        `the validation loss is not a finite number in epoch ${epoch}: try a lower learning rate`,
      );
    }
    this.#schedule.end(valid.loss);
    this.#interrupted = null;
    this.#epoch = epoch;
    this.#history.push({ epoch, lr, train, valid });
    const best = this.#best === null || valid.loss < this.#best.loss;
    if (best) {
      this.#best = { epoch, loss: valid.loss };
      await this.#in.model.saveWeights(this.#in.files.best);
      await this.#writeOof(validated);
    }
    await this.#writeHistory();
    await this.#save(null);
    this.#in.onEpoch(this.#history.at(-1)!, best);
  }

  async #writeOof(tally: EpochTally): Promise<void> {
    const { valid, index, files } = this.#in;
    const k = index.spec.classes.length;
    const rows = valid.ids.map((id, i) => [id, ...tally.probabilities.data.subarray(i * k, (i + 1) * k)]);
    await writeDurably(files.oof, stringify([['ID', ...index.spec.classes], ...rows]));
  }

  async #writeHistory(): Promise<void> {
    const { files, settings } = this.#in;
    await writeHistory(files.train, this.#history, 'train');
    await writeHistory(files.valid, this.#history, 'valid');
    await writeTrainingCurves(
      files.curves,
      this.#history,
      `${settings.backbone} fold ${settings.fold} ${settings.stage}`,
    );
  }

  async #save(tally: EpochTally | null): Promise<void> {
    const notes: Notes = {
      settings: this.#in.settings,
      epoch: this.#epoch,
      history: this.#history,
      schedule: this.#schedule.state(),
      best: this.#best,
    };
    await writeState(this.#in.files.last, this.#trainer.state(), { ...notes }, tally);
  }

  /** The best epoch so far. */
  get best(): { epoch: number; loss: number } | null {
    return this.#best;
  }
}

function checkSettings(path: string, found: FoldSettings, wanted: FoldSettings): void {
  const changed = (Object.keys(wanted) as (keyof FoldSettings)[]).filter((key) => {
    if (key === 'epochs' && wanted.schedule === 'plateau') return false; // a run may be made longer
    return JSON.stringify(found[key]) !== JSON.stringify(wanted[key]);
  });
  if (changed.length === 0) return;
  const text = (value: unknown): string => (typeof value === 'string' ? value : JSON.stringify(value));
  const list = changed.map((key) => `${key} ${text(found[key])} instead of ${text(wanted[key])}`).join(', ');
  throw new CellcamError(
    'ERR_TRAINING',
    `Expected the state of this run in ${path} but it is of another: ${list}; use the same options, another --stage, or remove the folder`,
  );
}

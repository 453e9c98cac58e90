import { Presets, SingleBar } from 'cli-progress';

/** Shows how far long work is: a bar on a terminal, plain lines now and then otherwise, JSON lines for machines. */
export class Progress {
  readonly #json: boolean;
  readonly #bar: SingleBar | undefined;
  #title = '';
  #started = 0;
  #shown = 0;
  /** When there was last something to tell: the work that is told next began then. */
  #last = Date.now();

  constructor(o: { json?: boolean }) {
    this.#json = o.json ?? false;
    if (process.stderr.isTTY && !this.#json) {
      const format = ' {title} [{bar}] {value}/{total} {unit} | {rate} | {left} left | {note}';
      this.#bar = new SingleBar({ format, hideCursor: true, stream: process.stderr, fps: 5 }, Presets.shades_classic);
    }
  }

  /** Says how far the work called `title` is. */
  update(title: string, done: number, total: number, unit: string, note = ''): void {
    if (title !== this.#title) this.#begin(title, total);
    this.#last = Date.now();
    const seconds = (this.#last - this.#started) / 1000;
    const rate = seconds > 0 ? done / seconds : 0;
    const left = rate > 0 ? duration((total - done) / rate) : '?';
    if (this.#bar) return this.#bar.update(done, { title, unit, rate: speed(rate), left, note });
    if (done < total && Date.now() - this.#shown < 5000) return;
    this.#shown = Date.now();
    if (this.#json) this.event({ event: 'progress', what: title, done, total, unit, rate });
    else console.error(`${title}: ${done}/${total} ${unit}, ${speed(rate)}, ${left} left${note && `; ${note}`}`);
  }

  #begin(title: string, total: number): void {
    this.#bar?.stop();
    this.#title = title;
    this.#started = this.#last;
    this.#shown = this.#last;
    this.#bar?.start(total, 0, { title, unit: '', rate: '?', left: '?', note: '' });
  }

  /** A line that stays: the text for people, the event for machines. */
  line(text: string, event: Record<string, unknown>): void {
    this.end();
    if (this.#json) this.event(event);
    else console.log(text);
  }

  event(event: Record<string, unknown>): void {
    console.log(JSON.stringify(event));
  }

  end(): void {
    this.#bar?.stop();
    this.#title = '';
    this.#last = Date.now();
  }
}

/** `rate` items a second; for slow ones the time that each takes. */
function speed(rate: number): string {
  return rate >= 0.1 || rate === 0 ? `${rate.toFixed(1)}/s` : `${duration(1 / rate)} each`;
}

export function duration(seconds: number): string {
  if (seconds < 100) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 100 ? `${minutes} min` : `${(minutes / 60).toFixed(1)} h`;
}

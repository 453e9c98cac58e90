/* Fields with their cells, and lists of cells. */
/* global report */
(() => {
  'use strict';

  const { data, make, number, section, save } = report;

  const SVG = 'http://www.w3.org/2000/svg';
  const state = { field: 0, cell: -1, channels: data.channels.map(() => true), cam: -1, outlines: true };
  const view = {};
  const pixels = new Map(); // of images by their address, once they are decoded

  function greyOf(address) {
    if (!pixels.has(address)) {
      pixels.set(
        address,
        new Promise((resolve, reject) => {
          const image = new Image();
          image.onload = () => {
            const canvas = make('canvas', { width: image.width, height: image.height });
            const context = canvas.getContext('2d', { willReadFrequently: true });
            context.drawImage(image, 0, 0);
            resolve(context.getImageData(0, 0, image.width, image.height).data);
          };
          image.onerror = () => reject(new Error('an image of the report is damaged'));
          image.src = address;
        }),
      );
    }
    return pixels.get(address);
  }

  /** Bilinear value of a small map at a pixel of the picture. */
  function sampler(map, h, w, size) {
    return (x, y) => {
      const u = Math.min(Math.max(((x + 0.5) * w) / size - 0.5, 0), w - 1);
      const v = Math.min(Math.max(((y + 0.5) * h) / size - 0.5, 0), h - 1);
      const [i, j] = [Math.floor(u), Math.floor(v)];
      const [i2, j2] = [Math.min(i + 1, w - 1), Math.min(j + 1, h - 1)];
      const [p, q] = [u - i, v - j];
      const top = map[j * w + i] * (1 - p) + map[j * w + i2] * p;
      const bottom = map[j2 * w + i] * (1 - p) + map[j2 * w + i2] * p;
      return (top * (1 - q) + bottom * q) / 255;
    };
  }

  function camOf(field) {
    if (!field.cams || state.cam < 0) return undefined;
    const bytes = Uint8Array.from(atob(field.cams.data), (c) => c.charCodeAt(0));
    const { h, w } = field.cams;
    return sampler(bytes.subarray(state.cam * h * w, (state.cam + 1) * h * w), h, w, data.size);
  }

  async function paint() {
    const field = data.fields[state.field];
    const planes = await Promise.all(field.channels.map(greyOf));
    if (data.fields[state.field] !== field) return; // another was chosen meanwhile
    const size = data.size;
    const context = view.canvas.getContext('2d');
    const image = context.createImageData(size, size);
    const cam = camOf(field);
    for (let y = 0, i = 0; y < size; y++) {
      for (let x = 0; x < size; x++, i += 4) {
        let [r, g, b] = [0, 0, 0];
        for (let c = 0; c < planes.length; c++) {
          if (!state.channels[c]) continue;
          const v = planes[c][i];
          const tint = data.channels[c].tint;
          r += v * tint[0];
          g += v * tint[1];
          b += v * tint[2];
        }
        if (cam) {
          const heat = cam(x, y);
          const cover = 0.7 * Math.sqrt(heat);
          r = r * (1 - cover) + 255 * Math.min(1, 0.35 + 1.3 * heat) * cover;
          g = g * (1 - cover) + 255 * Math.min(1, 1.15 * heat ** 1.5) * cover;
          b = b * (1 - cover) + 255 * Math.max(0, 1.6 * heat - 1) * cover;
        }
        image.data[i] = r;
        image.data[i + 1] = g;
        image.data[i + 2] = b;
        image.data[i + 3] = 255;
      }
    }
    context.putImageData(image, 0, 0);
    view.canvas.dataset.painted = `${state.field} ${state.channels.map(Number).join('')} ${state.cam}`;
  }

  function showCell(place) {
    const field = data.fields[state.field];
    const cell = field.cells[place];
    view.info.replaceChildren();
    if (!cell) {
      view.info.append(
        make('p', { class: 'note', text: 'Point at a cell, or reach it with Tab, to see its probabilities.' }),
      );
      return;
    }
    view.info.append(make('h3', { text: `Cell ${cell.cellId} of ${field.id}` }));
    const bars = make('div', { class: 'bars' });
    const order = data.classes.map((_, c) => c).sort((a, b) => cell.probabilities[b] - cell.probabilities[a]);
    for (const c of order) {
      const p = cell.probabilities[c];
      const given = field.labels?.includes(c);
      const steps = cell.step1 ? ` (step 1: ${number(cell.step1[c])}, step 2: ${number(cell.step2[c])})` : '';
      bars.append(
        make('span', { class: given ? 'given' : undefined, text: data.classes[c] + (given ? ' ●' : '') }),
        make(
          'span',
          { class: 'track', title: `${number(p)}${steps}` },
          make('span', { class: 'fill', style: `display: block; width: ${(100 * p).toFixed(1)}%` }),
        ),
        make('span', { text: number(p) }),
      );
    }
    view.info.append(bars);
    if (field.labels) view.info.append(make('p', { class: 'note', text: '● given as a label of the whole field' }));
  }

  function choose(place) {
    state.cell = place;
    [...view.svg.children].forEach((path, i) => path.setAttribute('aria-pressed', String(i === place)));
    showCell(place);
  }

  function outlines() {
    const field = data.fields[state.field];
    view.svg.replaceChildren(
      ...field.cells.map((cell, i) => {
        const path = document.createElementNS(SVG, 'path');
        const top = cell.probabilities.indexOf(Math.max(...cell.probabilities));
        const attributes = {
          d: cell.path,
          tabindex: 0,
          role: 'button',
          'aria-pressed': 'false',
          'aria-label': `cell ${cell.cellId}: ${data.classes[top]} ${number(cell.probabilities[top], 2)}`,
        };
        for (const [name, value] of Object.entries(attributes)) path.setAttribute(name, value);
        path.addEventListener('mouseenter', () => showCell(i));
        path.addEventListener('mouseleave', () => showCell(state.cell));
        path.addEventListener('focus', () => showCell(i));
        path.addEventListener('click', () => choose(state.cell === i ? -1 : i));
        path.addEventListener('keydown', (event) => {
          if (event.key !== 'Enter' && event.key !== ' ') return;
          event.preventDefault();
          choose(state.cell === i ? -1 : i);
        });
        return path;
      }),
    );
    view.svg.style.display = state.outlines ? '' : 'none';
  }

  function open(place, cellId) {
    state.field = (place + data.fields.length) % data.fields.length;
    const field = data.fields[state.field];
    view.select.value = String(state.field);
    view.labels.textContent = field.labels
      ? `Given labels: ${field.labels.map((c) => data.classes[c]).join(', ') || 'none'}`
      : '';
    outlines();
    choose(field.cells.findIndex((cell) => cell.cellId === cellId));
    void paint();
  }

  /** The picture with its outlines as it is seen. */
  function savePicture() {
    const field = data.fields[state.field];
    const scale = 2;
    const canvas = make('canvas', { width: scale * data.size, height: scale * data.size });
    const context = canvas.getContext('2d');
    context.drawImage(view.canvas, 0, 0, canvas.width, canvas.height);
    if (state.outlines) {
      context.scale(scale, scale);
      field.cells.forEach((cell, i) => {
        context.strokeStyle = i === state.cell ? '#ffd166' : '#fff';
        context.lineWidth = i === state.cell ? 1.6 : 0.8;
        context.stroke(new window.Path2D(cell.path));
      });
    }
    save(`${field.id}.png`, canvas.toDataURL('image/png'));
  }

  function toggle(text, get, set) {
    const button = make('button', { type: 'button', text, 'aria-pressed': String(get()) });
    button.addEventListener('click', () => {
      set(!get());
      button.setAttribute('aria-pressed', String(get()));
    });
    return button;
  }

  function drawGallery() {
    if (data.fields.length === 0) return;
    const element = section(
      'gallery',
      'Fields and cells',
      'Channels are brightened for the eye, each by itself. The activation maps are coarse: one of their values covers many pixels.',
    );
    view.select = make(
      'select',
      { 'aria-label': 'Field', on: { change: () => open(Number(view.select.value)) } },
      ...data.fields.map(({ id }, i) => make('option', { value: i, text: id })),
    );
    const step = (text, by) => make('button', { type: 'button', text, on: { click: () => open(state.field + by) } });
    element.append(make('div', { class: 'bar' }, step('Previous', -1), view.select, step('Next', 1)));
    const channels = make('div', { class: 'bar', role: 'group', 'aria-label': 'Channels' });
    channels.append(
      ...data.channels.map(({ name }, c) =>
        toggle(
          name,
          () => state.channels[c],
          (on) => {
            state.channels[c] = on;
            void paint();
          },
        ),
      ),
      toggle(
        'outlines',
        () => state.outlines,
        (on) => {
          state.outlines = on;
          outlines();
          choose(state.cell);
        },
      ),
    );
    if (data.fields.some(({ cams }) => cams)) {
      const cams = make('select', { 'aria-label': 'Activation map', on: { change: () => { state.cam = Number(cams.value); void paint(); } } }, make('option', { value: -1, text: 'no activation map' }), ...data.classes.map((name, c) => make('option', { value: c, text: name }))); // prettier-ignore
      channels.append(cams);
    }
    channels.append(make('button', { type: 'button', text: 'Save as PNG', on: { click: savePicture } }));
    element.append(channels);
    view.canvas = make('canvas', { width: data.size, height: data.size });
    view.svg = document.createElementNS(SVG, 'svg');
    view.svg.setAttribute('viewBox', `0 0 ${data.size} ${data.size}`);
    view.info = make('div', { 'aria-live': 'polite' });
    view.labels = make('p', { class: 'note' });
    element.append(
      make(
        'div',
        { class: 'gallery' },
        make('div', {}, make('div', { class: 'stage' }, view.canvas, view.svg), view.labels),
        view.info,
      ),
    );
    open(0);
  }

  function drawLists() {
    const lists = [
      ['Most confident', data.lists.confident, (e) => `${data.classes[e.classId]} ${number(e.p, 2)}`],
      [
        'Most doubtful',
        data.lists.doubtful,
        (e) => `${data.classes[e.classId]} ${number(e.p, 2)} or ${data.classes[e.other]} ${number(e.q, 2)}`,
      ],
      [
        'Worst disagreements with given labels',
        data.lists.disagreements,
        (e) =>
          e.given
            ? `labelled ${data.classes[e.classId]}, at most ${number(e.p, 2)}`
            : `not labelled ${data.classes[e.classId]}, yet ${number(e.p, 2)}`,
      ],
    ].filter(([, entries]) => entries.length > 0);
    if (lists.length === 0) return;
    const element = section('lists', 'Cells to look at', 'A click opens the cell in the gallery above.');
    const columns = make('div', { class: 'lists' });
    for (const [title, entries, text] of lists) {
      const items = entries.map((entry) => {
        const place = data.fields.findIndex(({ id }) => id === entry.id);
        const button = make('button', { type: 'button', text: `${entry.id}, cell ${entry.cellId}: ${text(entry)}` });
        if (place < 0) button.disabled = true;
        button.addEventListener('click', () => {
          open(place, entry.cellId);
          document.getElementById('gallery').scrollIntoView();
        });
        return make('li', {}, button);
      });
      columns.append(make('div', {}, make('h3', { text: title }), make('ol', {}, ...items)));
    }
    element.append(columns);
  }

  Object.assign(report, { drawGallery, drawLists });
})();

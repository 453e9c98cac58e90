/* What all parts of the report's page use. The page draws what the JSON in #data holds; it runs from file:// and asks no server for anything. */
/* global echarts */
/* exported report */
const report = (() => {
  'use strict';

  const data = JSON.parse(document.getElementById('data').textContent);
  const main = document.querySelector('main');
  const nav = document.querySelector('nav');

  /** An element with attributes and children; `on` holds listeners, `text` the text. */
  function make(tag, { on = {}, text, ...attributes } = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) if (value !== undefined) element.setAttribute(name, value);
    for (const [name, listener] of Object.entries(on)) element.addEventListener(name, listener);
    if (text !== undefined) element.textContent = text;
    element.append(...children.filter((child) => child !== undefined));
    return element;
  }

  const number = (v, digits = 3) => (v === null || v === undefined || Number.isNaN(v) ? '–' : v.toFixed(digits));

  function section(id, title, note) {
    const element = make('section', { id, 'aria-label': title }, make('h2', { text: title }));
    if (note) element.append(make('p', { class: 'note', text: note }));
    main.append(element);
    nav.append(make('a', { href: `#${id}`, text: title }));
    return element;
  }

  function save(name, url) {
    const link = make('a', { href: url, download: name });
    document.body.append(link);
    link.click();
    link.remove();
  }

  /** Buttons of which one is pressed. */
  function choices(label, names, choose) {
    const bar = make('div', { class: 'bar', role: 'group', 'aria-label': label });
    const buttons = names.map((name, i) =>
      make('button', { type: 'button', text: name, 'aria-pressed': 'false', on: { click: () => press(i) } }),
    );
    function press(i) {
      buttons.forEach((button, k) => button.setAttribute('aria-pressed', String(k === i)));
      choose(i);
    }
    bar.append(...buttons);
    return { bar, press };
  }

  const charts = [];
  function chart(parent, name, description) {
    const box = make('div', { class: 'chart', role: 'img', 'aria-label': description });
    const own = { show: () => undefined };
    const png = make('button', {
      type: 'button',
      text: 'Save as PNG',
      on: { click: () => save(`${name}.png`, own.drawing.getDataURL({ pixelRatio: 2, backgroundColor: '#fff' })) },
    });
    parent.append(box, make('div', { class: 'bar' }, png));
    own.drawing = echarts.init(box, null, { renderer: 'canvas' });
    own.show = (option) => own.drawing.setOption({ animation: false, ...option }, true);
    charts.push(own.drawing);
    return own;
  }
  window.addEventListener('resize', () => charts.forEach((drawing) => drawing.resize()));

  const PALETTE = ['#1f5fae', '#d9622b', '#2e8b57', '#8e44ad', '#b8860b', '#c2185b', '#00838f', '#5d4037'];
  const plain = (name, more = {}) => ({ type: 'value', name, nameLocation: 'middle', nameGap: 34, ...more });

  return { data, make, number, section, save, choices, chart, PALETTE, plain };
})();

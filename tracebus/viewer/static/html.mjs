// The one door to what is vendored: everything else imports from here.
//
// Text from a trace is only ever given to `html` as a child or an attribute, which escapes it. Nothing sets innerHTML.

import { Component, Fragment, h, render } from "./vendor/preact.mjs";
import { useCallback, useEffect, useId, useLayoutEffect, useMemo, useRef, useState } from "./vendor/hooks.mjs";
import { batch, computed, effect, signal, useComputed, useSignal, useSignalEffect } from "./vendor/signals.mjs";
import htm from "./vendor/htm.mjs";

export const html = htm.bind(h);
export {
  Component,
  Fragment,
  batch,
  computed,
  effect,
  render,
  signal,
  useCallback,
  useComputed,
  useEffect,
  useId,
  useLayoutEffect,
  useMemo,
  useRef,
  useSignal,
  useSignalEffect,
  useState,
};

#!/bin/bash
# The two games of 98a_gallery, from nothing to a film: `cd bench/gallery; bash commands.sh cars` or `doors`. Started again, each goes on where it stopped.
# Ten to fifteen minutes of one core each; racer.py and seeker.py are found because they lie in the directory you stand in.
set -e
case $1 in
cars)
  oniris_record --env CarRacing-v3 --options '{"continuous": false}' --wrap racer:Settled --policy racer:Driver \
    --clips 200 --frames 48 --size 64 --skip 4 --longest 150 --workers 1 --out data/cars
  oniris_train_vae --data data/cars --out runs/cars_vae --strides 1x8,1x1 --channels 3,64,16 --length 1 --steps 6000 --lr 3e-3
  oniris_encode --data data/cars --codec runs/cars_vae --out data/cars_latents ;;
doors)
  oniris_record --env MiniGrid-DoorKey-8x8-v0 --options '{"highlight": false, "tile_size": 8}' --policy seeker:Seeker \
    --clips 400 --frames 24 --size 64 --tail 8 --workers 1 --out data/doors
  oniris_train_vae --data data/doors --out runs/doors_vae --strides 1x8,1x1 --channels 3,64,16 --length 1 --steps 4000 --lr 3e-3 --plain
  oniris_encode --data data/doors --codec runs/doors_vae --out data/doors_latents ;;
esac
oniris_train --data data/$1_latents --out runs/$1 --preset lander_cpu --precision bfloat16 --steps 1200
oniris_evaluate --run runs/$1
oniris_dream --run runs/$1 --frames 64 --out $1.gif

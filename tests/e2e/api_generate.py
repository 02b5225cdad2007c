#!/usr/bin/env python3
"""The golden paths: what /generate answers, in every form; estimates; what there is."""
import json
import unittest
import urllib.parse

from daemon import MODEL, SMALL, Daemon, enter_class, images_of, read_png


class Generate(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = enter_class(cls, Daemon())

    def test_json(self):
        answer = self.daemon.generate({"steps": 3, "num_images": 2})
        self.assertEqual(answer.status, 200, answer.body)
        self.assertEqual(answer.headers["Content-Type"], "application/json")
        body = answer.json()
        self.assertEqual(sorted(body), ["batch", "created", "flops", "id", "images", "latency",
                                        "model", "pruning", "warnings"])
        self.assertEqual(body["id"], answer.headers["X-Request-Id"])
        self.assertEqual(body["model"], MODEL.rstrip("/").rsplit("/", 1)[-1])
        self.assertEqual([image["seed"] for image in body["images"]], [7, 8])
        for image, png in zip(body["images"], images_of(answer)):
            self.assertEqual((image["width"], image["height"]), (32, 32))
            width, height, pixels, texts = read_png(png)
            self.assertEqual((width, height), (32, 32))
            self.assertGreater(len(set(pixels)), 2, "an image, not one colour")
            self.assertIn(f"Seed: {image['seed']}", texts["parameters"])
            self.assertIn("a red circle", texts["parameters"])
            self.assertEqual(json.loads(texts["atedm"])["generate"]["seed"], image["seed"])
        self.assertEqual(body["pruning"]["preset"], "at-edm")
        self.assertEqual(body["pruning"]["ratio"], 0.7)
        self.assertEqual(body["batch"], {"mean_size": 2, "max_size": 2})
        self.assertEqual(body["warnings"], [])

    def test_figures_add_up(self):
        body = self.daemon.generate({"steps": 4, "num_images": 3}).json()
        flops, latency = body["flops"], body["latency"]
        self.assertEqual(flops["executed"], flops["text_encoder"] + flops["unet"] + flops["vae"])
        self.assertAlmostEqual(flops["saved_ratio"], 1 - flops["executed"] / flops["baseline"])
        self.assertGreater(flops["overhead"], 0)
        self.assertLess(flops["overhead"], flops["unet"])
        self.assertEqual(len(latency["steps_s"]), 4)
        self.assertAlmostEqual(sum(latency["steps_s"]), latency["denoise_s"], places=6)
        stages = ("queue_s", "text_encoder_s", "denoise_s", "vae_s", "encode_s")
        self.assertTrue(all(latency[stage] >= 0 for stage in stages))
        self.assertLessEqual(sum(latency[stage] for stage in stages), latency["total_s"] + 1e-6)

    def test_png(self):
        for fields, headers in (({}, {"Accept": "image/png"}),
                                ({"response_format": "png"}, {})):
            answer = self.daemon.generate(fields, headers=headers)
            self.assertEqual(answer.status, 200, answer.body)
            self.assertEqual(answer.headers["Content-Type"], "image/png")
            self.assertEqual(answer.headers["X-Atedm-Seed"], "7")
            self.assertEqual(int(answer.headers["Content-Length"]), len(answer.body))
            self.assertEqual(read_png(answer.body)[:2], (32, 32))

    def test_same_bytes_every_time_and_in_every_form(self):
        first = images_of(self.daemon.generate({"num_images": 2}))
        again = images_of(self.daemon.post("/v1/generate", {**SMALL, "num_images": 2}))
        self.assertEqual(first, again)
        self.assertNotEqual(first[0], first[1])
        png = self.daemon.generate(headers={"Accept": "image/png"}).body
        self.assertEqual(read_png(png)[2], read_png(first[0])[2])
        second = self.daemon.generate({"seed": 8})
        self.assertEqual(read_png(images_of(second)[0])[2], read_png(first[1])[2])

    def test_a_drawn_seed_is_told_and_works(self):
        fields = {key: SMALL[key] for key in SMALL if key != "seed"}
        answers = [self.daemon.post("/generate", fields) for _ in range(2)]
        seeds = [answer.json()["images"][0]["seed"] for answer in answers]
        self.assertNotEqual(seeds[0], seeds[1])
        again = self.daemon.generate({"seed": seeds[0]})
        self.assertEqual(images_of(again), images_of(answers[0]))
        png = self.daemon.post("/generate", fields, headers={"Accept": "image/png"})
        self.assertIn(f"Seed: {png.headers['X-Atedm-Seed']},", read_png(png.body)[3]["parameters"])

    def test_pruning_off_and_ratio_0_are_the_same_image(self):
        off = self.daemon.generate({"pruning": "off"})
        zero = self.daemon.generate({"pruning": {"ratio": 0}})
        half = self.daemon.generate({"pruning": {"ratio": 0.5}})
        pixels = [read_png(images_of(answer)[0])[2] for answer in (off, zero, half)]
        self.assertEqual(pixels[0], pixels[1])
        self.assertNotEqual(pixels[0], pixels[2])
        self.assertEqual(off.json()["pruning"]["preset"], "off")
        self.assertEqual(off.json()["flops"]["saved_ratio"], 0)
        self.assertEqual(off.json()["flops"]["overhead"], 0)
        self.assertGreater(half.json()["flops"]["saved_ratio"] +
                           half.json()["flops"]["overhead"] / half.json()["flops"]["baseline"], 0)

    def test_guidance_off_halves_the_work(self):
        with_it = self.daemon.generate({"pruning": "off"}).json()["flops"]["unet"]
        without = self.daemon.generate({"pruning": "off", "guidance_scale": 1}).json()["flops"]
        self.assertAlmostEqual(without["unet"] / with_it, 0.5, places=3)

    def test_unequal_sides(self):
        answer = self.daemon.generate({"width": 64, "height": 32}, headers={"Accept": "image/png"})
        self.assertEqual(read_png(answer.body)[:2], (64, 32))

    def test_a_cut_prompt_is_told(self):
        prompt = "kittens and puppies " * 60
        body = self.daemon.generate({"prompt": prompt, "negative_prompt": prompt}).json()
        self.assertEqual(len(body["warnings"]), 2)
        for warning, name in zip(body["warnings"], ("prompt", "negative_prompt")):
            self.assertTrue(warning.startswith(name + " is longer"), warning)
            cut = int(warning.split("after byte ")[1].split(":")[0])
            self.assertIn(prompt[cut:cut + 150], warning)
        for text in (prompt, "\r\n100 % of \N{CAT FACE}s, \"ü\", \x7f" * 60):
            both = {"prompt": prompt, "negative_prompt": text}
            warnings = self.daemon.generate(both).json()["warnings"]
            self.assertEqual(len(warnings), 2)
            answer = self.daemon.generate(both, headers={"Accept": "image/png"})
            told = answer.headers.get_all("X-Atedm-Warning")
            self.assertEqual([urllib.parse.unquote(value, errors="strict") for value in told], warnings)
            self.assertTrue("".join(told).isascii())

    def test_long_and_odd_prompts(self):
        for prompt in ("a", "\N{CAT FACE}" * 2048, "é\u0301ﬁ\u200d\ufffd\U0010ffff", " ", "\n\t"):
            answer = self.daemon.generate({"prompt": prompt})
            self.assertEqual(answer.status, 200, answer.body)
            texts = read_png(images_of(answer)[0])[3]
            self.assertEqual(json.loads(texts["atedm"])["generate"]["prompt"], prompt)


class Estimate(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = enter_class(cls, Daemon())

    def test_is_what_the_generation_counts(self):
        for fields in ({}, {"pruning": "off"}, {"num_images": 3, "steps": 5},
                       {"guidance_scale": 0}, {"negative_prompt": "x"},
                       {"pruning": {"ratio": 0.4, "schedule": "uniform", "recovery": "cosine"}}):
            estimate = self.daemon.post("/v1/estimate", {**SMALL, **fields}).json()
            body = self.daemon.generate(fields).json()
            self.assertEqual(estimate["flops"], body["flops"], fields)
            self.assertEqual(estimate["pruning"], body["pruning"], fields)

    def test_of_a_request_for_the_picture_itself(self):
        """The Accept header is the estimate's, which is JSON; so the field that was not sent is not wrong."""
        answer = self.daemon.post("/v1/estimate", {**SMALL, "num_images": 2}, headers={"Accept": "image/png"})
        self.assertEqual(answer.status, 200, answer.body)
        answer = self.daemon.post("/v1/estimate", {**SMALL, "num_images": 2, "response_format": "png"})
        self.assertEqual(answer.pointers(), ["/response_format"])

    def test_plan_of_a_budget(self):
        fields = {**SMALL, "steps": 10, "pruning": {"flops_budget": 0.99}}
        body = self.daemon.post("/v1/estimate", fields).json()
        self.assertLessEqual(body["pruning"]["mean_unet_flops_ratio"], 0.99)
        self.assertGreater(body["pruning"]["ratio"], 0)
        runs = body["plan"]
        self.assertEqual((runs[0]["first_step"], runs[0]["last_step"]), (0, 2), "0.3 of 10 steps")
        self.assertEqual((runs[1]["first_step"], runs[1]["last_step"]), (3, 9))
        self.assertIn(0.0, runs[0]["ratios"].values())
        self.assertNotIn(0.0, runs[1]["ratios"].values())

    def test_wait_from_the_measured_rate(self):
        with Daemon() as fresh:
            expected = fresh.post("/v1/estimate", SMALL).json()["expected"]
            self.assertEqual(expected, {"wait_s": None, "run_s": None, "total_s": None,
                                        "flops_per_s": None})
            flops = fresh.generate().json()["flops"]["executed"]
            expected = fresh.post("/v1/estimate", SMALL).json()["expected"]
            self.assertEqual(expected["wait_s"], 0)
            self.assertAlmostEqual(expected["run_s"] * expected["flops_per_s"] / flops, 1)


class Info(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = enter_class(cls, Daemon(max_images=3, default_pruning="at-edm-b"))

    def test_models(self):
        model, = self.daemon.get("/v1/models").json()["models"]
        self.assertTrue(model["loaded"])
        self.assertGreater(model["parameters"], 0)
        self.assertIn(model["dtype"], ("f32", "bf16", "f16"))
        self.assertEqual(model["limits"]["max_images"], 3)
        native = self.daemon.post("/v1/estimate", {"prompt": "a"}).json()
        self.assertEqual((native["width"], native["height"]),
                         (model["native_width"], model["native_height"]))

    def test_samplers_and_schedules(self):
        samplers = self.daemon.get("/v1/samplers").json()["samplers"]
        self.assertEqual(samplers[0], {"name": "euler", "default": True})
        pictures = {}
        for sampler in samplers:
            fields = {**SMALL, "steps": 4, "num_images": 2, "sampler": sampler["name"]}
            pictures[sampler["name"]] = images_of(self.daemon.generate(fields))
            again = images_of(self.daemon.generate({**fields, "seed": fields["seed"] + 1, "num_images": 1}))
            self.assertEqual(pictures[sampler["name"]][1:], again, "each image has its own history")
        self.assertEqual(len({images[0] for images in pictures.values()}), len(samplers))
        self.assertIn("Sampler: DPM++ 2M Karras,", read_png(pictures["dpmpp_2m_karras"][0])[3]["parameters"])
        schedules = self.daemon.get("/v1/schedules").json()
        self.assertEqual(schedules["default"]["preset"], "at-edm-b")
        self.assertEqual([s["name"] for s in schedules["schedules"]], ["dsap", "uniform", "phases"])
        for preset in schedules["presets"]:
            answer = self.daemon.post("/v1/estimate", {**SMALL, "pruning": preset["preset"]})
            self.assertEqual(answer.status, 200, preset)

    def test_health(self):
        self.assertEqual(self.daemon.get("/healthz").status, 200)
        self.assertEqual(self.daemon.get("/readyz").json(), {"status": "ready"})

    def test_the_configured_default_is_used(self):
        body = self.daemon.post("/v1/estimate", SMALL).json()
        self.assertEqual(body["pruning"]["preset"], "at-edm-b")


if __name__ == "__main__":
    unittest.main()

def test_a_teacher_that_sees_the_targets_alone(make_jepa):
    """Against an encoding of each sample's set of targets by itself; overlapping blocks, filler, both together."""
    teacher = make_jepa().teacher
    values = torch.randn(2, 16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    tokens = Tokens(values=values, positions=grid_positions((4, 4)), grid=(4, 4))
    targets = torch.tensor([[[0, 1, 5], [1, 2, 6]], [[3, 7, 0], [8, 12, 13]]])
    valid = torch.tensor([[[True] * 3, [True] * 3], [[True, True, False], [True] * 3]])
    for blocks, real in ((targets, None), (targets, valid), (targets[:, :1], None), (targets[:, :1], valid[:, :1])):
        found = teacher.alone(tokens, blocks, real)
        assert found.shape == (*blocks.shape, 32)
        for b in range(2):
            own = torch.ones_like(blocks[b], dtype=torch.bool) if real is None else real[b]
            alone = sorted(set(blocks[b][own].tolist()))
            one = Tokens(values=values[b : b + 1], positions=tokens.positions, grid=(4, 4))
            expected = teacher(one, torch.tensor([alone]))[0]
            for place, encoded in zip(blocks[b][own].tolist(), found[b][own], strict=True):
                assert torch.allclose(encoded, expected[alone.index(place)], atol=1e-5)


def test_what_is_no_target_changes_nothing_for_a_teacher_that_sees_targets_alone(make_jepa):
    module = make_jepa(target_sees="targets")
    image = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    step = module.compare({"image": image}, torch.Generator().manual_seed(1))
    hidden = torch.zeros(4, 16).scatter_(1, step.masks[0].targets.flatten(1), 1).view(4, 1, 4, 4)
    other = torch.where(hidden.repeat_interleave(8, 2).repeat_interleave(8, 3) > 0, image, 0.0)
    again = module.compare({"image": other}, torch.Generator().manual_seed(1))
    assert torch.equal(step.target, again.target)
    assert step.target.shape == (4, 8, 32)  # two blocks of four
    whole = make_jepa().compare({"image": image}, torch.Generator().manual_seed(1))
    assert not torch.allclose(step.target, take(whole.target, step.masks[0].targets).flatten(1, 2), atol=1e-3)


def test_target_sees_is_checked(make_jepa):
    with pytest.raises(ValueError, match="target_sees must be all or targets, got 'context'"):
        make_jepa(target_sees="context")


def test_a_run_whose_teacher_sees_targets_alone(make_trainer, make_jepa, make_data):
    module = make_jepa(target_sees="targets")
    trainer = make_trainer(CollapseMonitor(every_n_steps=2), max_steps=4)
    trainer.fit(module, datamodule=make_data())
    assert trainer.callback_metrics["train/loss"].isfinite()
    assert trainer.callback_metrics["collapse/effective_rank"] > 1

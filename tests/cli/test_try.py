import time
def test_try(saved_sd, tmp_path):
    import cProfile, pstats
    from learn_to_steer.cli import main
    t=time.time()
    a=["generate","a dog to the left of a teddy bear", "--model",str(saved_sd),"--classifier",str(saved_sd/"classifier"),"--steps","3","--out",str(tmp_path/'o'),"--set","threshold=0.99999", "--set","passes=2"]
    pr=cProfile.Profile(); pr.enable(); main(a); pr.disable(); print(time.time()-t)
    pstats.Stats(pr).sort_stats("cumtime").print_stats(45)
    t=time.time(); main(a); print(time.time()-t)
